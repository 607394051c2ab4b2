//! Files of torch.save, whole and sharded: every bad one of tests/hostile, and those that only show beside other files.

use std::path::Path;

use crate::checkpoints::workspace;
use crate::fixture::*;
use crate::{Row, row};

const MERGE: &str = "merge pickled.yml out";

/// What messages have to name, beside the file: the global that a program would run, the tensor, the opcode.
const SAYS: [(&str, &str); 21] = [
    ("os-system", "`os.system`"),
    ("posix-system", "`posix.system`"),
    ("eval", "`builtins.eval`"),
    ("subprocess", "`subprocess.Popen`"),
    ("getattr", "`builtins.getattr`"),
    ("import", "`importlib.import_module`"),
    ("torch-load", "`torch.serialization.load`"),
    ("stack-global", "`os.system`"),
    ("newobj", "`os.system`"),
    ("in-a-tensors-name", "entry `w`"),
    ("storage-is-os", "`os.system`"),
    ("global-with-escape", "\\u{1b}"),
    ("ext", "0x82"),
    ("marks", "1000 deep"),
    ("shape-2-63", "2^64"),
    ("offset-beyond", "beyond its storage"),
    ("complex", "complex64"),
    ("compressed", "compressed"),
    ("storage-missing", "w: its storage 0"),
    ("torchscript", "TorchScript"),
    ("runs-a-program-legacy", "`os.system`"),
];

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (folder, kind) in [("torch_pickle", "pickle"), ("torch_file", "torch.save")] {
        let mut names: Vec<String> = workspace()
            .join("tests/hostile")
            .join(folder)
            .read_dir()
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().unwrap().strip_prefix("bad-").map(str::to_owned))
            .collect();
        names.sort();
        rows.extend(names.into_iter().map(|name| hostile(folder, kind, name)));
    }
    rows.extend(folders());
    rows
}

/// One of tests/hostile in the place of the model's weights.
fn hostile(folder: &'static str, kind: &str, name: String) -> Row {
    let (stem, _) = name.split_once('.').unwrap();
    let mut says = vec!["pytorch_model.bin"];
    says.extend(SAYS.iter().find(|(known, _)| *known == stem).map(|(_, said)| *said));
    // A test binary lives shortly: its table may hold names that are never freed.
    let row_name: &'static str = Box::leak(format!("{kind}: {}", stem.replace('-', " ")).into_boxed_str());
    row(row_name, MERGE, &says, move |f| {
        let bytes = std::fs::read(workspace().join("tests/hostile").join(folder).join(format!("bad-{name}"))).unwrap();
        let bytes = if folder == "torch_pickle" { archive(&[("data.pkl", &bytes), ("data/0", &[0; 24])]) } else { bytes };
        write(f, PICKLED, bytes);
    })
}

/// A folder of pickles.
fn folders() -> Vec<Row> {
    let sharded = |name: &'static str, says: &[&'static str], index: &'static str| {
        row(name, MERGE, says, move |f: &Path| {
            std::fs::rename(f.join(PICKLED), f.join("pickled/pytorch_model-00001-of-00001.bin")).unwrap();
            write(f, "pickled/pytorch_model.bin.index.json", index);
        })
    };
    vec![
        row("torch.save: a folder", MERGE, &["pytorch_model.bin"], |f| folder_instead(f, PICKLED)),
        row("torch.save: a pipe", MERGE, &["pytorch_model.bin"], |f| pipe_instead(f, PICKLED)),
        row("torch.save: a link to /dev/zero", MERGE, &["pytorch_model.bin"], |f| link_instead(f, PICKLED, "/dev/zero")),
        row("torch.save: 4 GB of nothing", MERGE, &["pytorch_model.bin"], |f| {
            write(f, PICKLED, "");
            cut(f, PICKLED, 4 << 30);
        }),
        row("torch.save: another model's tensors", MERGE, &["./pickled", "exclude"], |f| {
            std::fs::copy(workspace().join("tests/hostile/torch_file/valid-small.bin"), f.join(PICKLED)).unwrap();
        }),
        sharded(
            "torch.save: a shard in the folder above",
            &["pytorch_model.bin.index.json", "do not trust"],
            r#"{"weight_map": {"a": "../base/model.safetensors"}}"#,
        ),
        sharded(
            "torch.save: a shard is missing",
            &["pytorch_model.bin.index.json", "pytorch_model-2.bin"],
            r#"{"weight_map": {"a": "pytorch_model-2.bin"}}"#,
        ),
        sharded(
            "torch.save: tensors that the index does not name",
            &["pytorch_model.bin.index.json", "does not name it"],
            r#"{"weight_map": {"lm_head.weight": "pytorch_model-00001-of-00001.bin"}}"#,
        ),
        row("adapter: a pickle that runs a program", "merge adapter.yml out", &["adapter_model.bin", "`os.system`"], |f| {
            remove(f, "adapter/adapter_model.safetensors");
            let program = workspace().join("tests/hostile/torch_pickle/bad-os-system.pkl");
            write(f, "adapter/adapter_model.bin", archive(&[("data.pkl", &std::fs::read(program).unwrap())]));
        }),
    ]
}

/// A zip archive as torch.save writes it, its entries stored. Checksums are left out, since no reader of weights looks at them.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let (name, offset, length) = (format!("archive/{name}"), file.len() as u32, (bytes.len() as u32).to_le_bytes());
        let mut fields = [0; 26];
        fields[14..18].copy_from_slice(&length);
        fields[18..22].copy_from_slice(&length);
        fields[22..24].copy_from_slice(&(name.len() as u16).to_le_bytes());
        file.extend([&b"PK\x03\x04"[..], &fields, name.as_bytes(), bytes].concat());
        directory.extend([&b"PK\x01\x02\0\0"[..], &fields, &[0; 10], &offset.to_le_bytes(), name.as_bytes()].concat());
    }
    let (count, place) = ((entries.len() as u16).to_le_bytes(), file.len() as u32);
    let end = [&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &(directory.len() as u32).to_le_bytes(), &place.to_le_bytes(), &[0; 2]];
    [file, directory, end.concat()].concat()
}
