//! What torch.save wrote is read as torch reads it. The files under tests/torch are made by tests/python/torch_files.py, which also stores
//! what `torch.load` gives (as safetensors, every tensor contiguous).

use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Checkpoint, DType, SafetensorsFile, TensorSource, TorchFile, WeightFile, Window, parse_torch_file};
use proptest::prelude::*;

const CASES: [&str; 10] = [
    "legacy",
    "legacy_big_endian_machine",
    "legacy_protocol_4",
    "legacy_python_2",
    "sharded",
    "tied",
    "zip",
    "zip_big_endian",
    "zip_dict",
    "zip_protocol_4",
];

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch").join(name)
}

fn read(source: &dyn TensorSource, name: &str, start: u64, count: usize) -> (DType, Vec<u8>) {
    let mut window = Window { dtype: DType::U8, bytes: vec![77; 13] };
    source.read(name, start, count, &mut window).unwrap();
    (window.dtype, window.bytes)
}

#[test]
fn every_run_of_elements_of_every_tensor_is_what_torch_reads() {
    for case in CASES {
        let model = Checkpoint::open(&place(case)).unwrap();
        let expected = SafetensorsFile::open(&place(&format!("{case}.safetensors"))).unwrap();
        assert_eq!(model.tensors(), expected.tensors(), "{case}");
        for (name, info) in expected.tensors() {
            let (elements, size) = (info.elements() as usize, info.dtype.size());
            let whole = read(&expected, name, 0, elements);
            assert_eq!(read(&model, name, 0, elements), whole, "{case}: {name}");
            for start in 0..elements {
                for count in [1, 2, 5, elements - start].into_iter().filter(|count| start + count <= elements) {
                    let (_, bytes) = read(&model, name, start as u64, count);
                    assert_eq!(bytes, whole.1[start * size..(start + count) * size], "{case}: {name}, {count} elements from {start} on");
                }
            }
        }
    }
}

#[test]
fn the_format_is_known_by_its_content() {
    for (case, format) in [("zip", "PyTorch (zip)"), ("legacy", "PyTorch (legacy)")] {
        let model = Checkpoint::open(&place(case)).unwrap();
        assert_eq!(model.files()[0].format(), format);
        assert!(model.file_of("transposed").unwrap().path().ends_with("pytorch_model.bin"));
    }
    assert_eq!(WeightFile::open(&place("zip.safetensors")).unwrap().format(), "safetensors");
}

#[test]
fn tensors_that_share_a_storage_are_all_there() {
    let file = TorchFile::open(&place("zip/pytorch_model.bin")).unwrap();
    let elements = file.tensors()["shared.whole"].elements() as usize;
    assert_eq!(read(&file, "shared.again", 0, elements), read(&file, "shared.whole", 0, elements));
}

#[test]
fn windows_outside_of_a_tensor_are_errors() {
    let file = TorchFile::open(&place("zip/pytorch_model.bin")).unwrap();
    let elements = file.tensors()["transposed"].elements();
    let mut window = Window { dtype: DType::F32, bytes: Vec::new() };
    for (name, start, count) in
        [("transposed", 0, elements as usize + 1), ("transposed", elements, 1), ("transposed", u64::MAX, 1), ("no", 0, 0)]
    {
        let error = file.read(name, start, count, &mut window).unwrap_err();
        assert!(error.message().contains("pytorch_model.bin") && error.message().contains(name), "{error}");
    }
    assert!(file.read_into("transposed", 0, &mut [0; 3]).unwrap_err().message().contains("no whole number"));
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_an_error() {
    for case in ["zip", "legacy"] {
        let bytes = std::fs::read(place(case).join("pytorch_model.bin")).unwrap();
        assert!(parse_torch_file(&bytes).is_ok());
        for length in (0..bytes.len()).step_by(7).chain(bytes.len() - 30..bytes.len()) {
            let error = parse_torch_file(&bytes[..length]).unwrap_err();
            assert!(error.message().len() < 2000);
        }
    }
}

proptest! {
    #[test]
    fn no_damage_makes_the_reader_panic(
        case in prop::sample::select(vec!["zip", "legacy", "zip_protocol_4", "legacy_python_2"]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = std::fs::read(place(case).join("pytorch_model.bin")).unwrap();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Err(error) = parse_torch_file(&bytes) {
            prop_assert!(error.to_string().len() < 2000);
        }
    }
}
