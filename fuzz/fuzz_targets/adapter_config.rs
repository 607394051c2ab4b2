#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    deltaic_fuzz::adapter_config(bytes);
});
