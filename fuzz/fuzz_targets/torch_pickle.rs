#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    deltaic_fuzz::torch_pickle(bytes);
});
