//! The directory of a zip archive as `torch.save` writes it: entries stored, not compressed, zip64 where needed
//! (PKWARE's APPNOTE.TXT, sections 4.3.7, 4.3.12 and 4.3.14 to 4.3.16).
//!
//! Only the directory and the entries' headers are read. Checksums are not checked: that would read all weights.

use std::collections::BTreeMap;

use crate::dtype::shorten;
use crate::error::{Error, Result};
use crate::formats::regular_file::Bytes;

/// A directory of more bytes is not one.
const MAX_DIRECTORY: u64 = 100_000_000;
const END: (u32, u64) = (0x0605_4b50, 22);
const END_64: (u32, u64) = (0x0606_4b50, 56);
const LOCATOR_64: (u32, u64) = (0x0706_4b50, 20);
const DIRECTORY_ENTRY: (u32, usize) = (0x0201_4b50, 46);
const LOCAL_HEADER: (u32, u64) = (0x0403_4b50, 30);
/// What stands in a field of 32 bits where the number is in the zip64 field.
const IN_ZIP64: u32 = u32::MAX;

/// Where an entry's bytes are in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// The first one.
    pub(super) offset: u64,
    /// How many.
    pub(super) length: u64,
}

/// Where the directory is, and how many entries it lists.
struct Directory {
    offset: u64,
    length: u64,
    entries: u64,
}

/// An entry as the directory lists it.
struct Listed {
    name: String,
    header: u64,
    length: u64,
    flags: u16,
}

/// The entries of an archive by name. All lie within the file, none over another.
///
/// # Errors
/// The archive is cut off, or an entry is compressed, encrypted, given twice, out of bounds, or not what its own header says.
pub(super) fn entries(file: &dyn Bytes) -> Result<BTreeMap<String, Entry>> {
    let directory = find_directory(file)?;
    let bytes = file.read_range(directory.offset, directory.length, "the zip directory")?;
    let mut rest = &bytes[..];
    let mut listed = Vec::new();
    for _ in 0..directory.entries {
        listed.push(read_entry(&mut rest)?);
    }
    if !rest.is_empty() {
        return Err(damaged(format!("the zip directory lists {} entries, {} bytes are left after them", directory.entries, rest.len())));
    }
    listed.sort_by_key(|entry| entry.header);
    let mut entries = BTreeMap::new();
    for (number, entry) in listed.iter().enumerate() {
        let end = listed.get(number + 1).map_or(directory.offset, |next| next.header);
        let place = locate(file, entry, end)?;
        if entries.insert(entry.name.clone(), place).is_some() {
            return Err(damaged(format!("the entry `{}` is given twice", shorten(&entry.name))));
        }
    }
    Ok(entries)
}

/// Finds the directory by the records at the end of the file.
fn find_directory(file: &dyn Bytes) -> Result<Directory> {
    let end = file.length().checked_sub(END.1).ok_or_else(cut_off)?;
    let record = file.read_range(end, END.1, "the end of the zip directory")?;
    if u32_at(&record, 0) != END.0 || u16_at(&record, 20) != 0 {
        return Err(cut_off());
    }
    if u16_at(&record, 4) != 0 || u16_at(&record, 6) != 0 {
        return Err(damaged("the archive is split over several files".to_owned()));
    }
    let mut directory = Directory {
        offset: u64::from(u32_at(&record, 16)),
        length: u64::from(u32_at(&record, 12)),
        entries: u64::from(u16_at(&record, 10)),
    };
    let mut directory_end = end;
    if let Some(locator_start) = end.checked_sub(LOCATOR_64.1) {
        let locator = file.read_range(locator_start, LOCATOR_64.1, "the zip64 locator")?;
        if u32_at(&locator, 0) == LOCATOR_64.0 {
            directory_end = u64_at(&locator, 8);
            let record = file.read_range(directory_end, END_64.1, "the zip64 end of the directory")?;
            if u32_at(&record, 0) != END_64.0 || directory_end + END_64.1 > locator_start {
                return Err(damaged("the zip64 record is not where its locator says".to_owned()));
            }
            directory = Directory { offset: u64_at(&record, 48), length: u64_at(&record, 40), entries: u64_at(&record, 32) };
        }
    }
    let Directory { offset, length, entries } = directory;
    if length > MAX_DIRECTORY || entries > length / DIRECTORY_ENTRY.1 as u64 {
        return Err(damaged(format!(
            "the zip directory has {length} bytes for {entries} entries (at most {MAX_DIRECTORY} bytes are read)"
        )));
    }
    if offset.checked_add(length) != Some(directory_end) {
        return Err(damaged(format!("the zip directory is said to be {length} bytes at {offset}, but it ends at {directory_end}")));
    }
    Ok(directory)
}

/// Takes one entry off the directory.
fn read_entry(rest: &mut &[u8]) -> Result<Listed> {
    let short = || damaged("the zip directory ends within an entry".to_owned());
    let (fixed, variable) = rest.split_at_checked(DIRECTORY_ENTRY.1).ok_or_else(short)?;
    if u32_at(fixed, 0) != DIRECTORY_ENTRY.0 {
        return Err(damaged("the zip directory holds something that is no entry".to_owned()));
    }
    let lengths = [28, 30, 32].map(|at| usize::from(u16_at(fixed, at)));
    let (name, variable) = variable.split_at_checked(lengths[0]).ok_or_else(short)?;
    let (extra, variable) = variable.split_at_checked(lengths[1]).ok_or_else(short)?;
    *rest = variable.get(lengths[2]..).ok_or_else(short)?;
    let name = std::str::from_utf8(name).map_err(|_| damaged("an entry's name is not UTF-8".to_owned()))?.to_owned();
    let shown = shorten(&name);
    let (flags, method) = (u16_at(fixed, 8), u16_at(fixed, 10));
    if method != 0 || flags & 1 != 0 {
        let what = if flags & 1 != 0 { "encrypted".to_owned() } else { format!("compressed (method {method})") };
        return Err(Error::new(format!("the entry `{shown}` is {what}; torch.save stores entries as they are"))
            .help("load the file in torch and save it again"));
    }
    let mut zip64 = zip64_field(extra);
    let mut wide = |at: usize| -> Result<u64> {
        match u32_at(fixed, at) {
            IN_ZIP64 => {
                let (number, others) =
                    zip64.split_at_checked(8).ok_or_else(|| damaged(format!("the entry `{shown}` lacks its zip64 field")))?;
                zip64 = others;
                Ok(u64_at(number, 0))
            }
            number => Ok(u64::from(number)),
        }
    };
    // The zip64 field holds those numbers that do not fit, in this order.
    let (length, stored, header) = (wide(24)?, wide(20)?, wide(42)?);
    if length != stored {
        return Err(damaged(format!("the entry `{shown}` is not compressed, but takes {stored} bytes for {length}")));
    }
    Ok(Listed { name, header, length, flags })
}

/// The content of the zip64 field among the extra fields, empty where there is none.
fn zip64_field(mut extra: &[u8]) -> &[u8] {
    while let Some((head, rest)) = extra.split_at_checked(4) {
        let Some((field, others)) = rest.split_at_checked(usize::from(u16_at(head, 2))) else { break };
        if u16_at(head, 0) == 1 {
            return field;
        }
        extra = others;
    }
    &[]
}

/// Finds an entry's bytes behind its own header; `end` is where the next entry or the directory begins.
fn locate(file: &dyn Bytes, entry: &Listed, end: u64) -> Result<Entry> {
    let shown = shorten(&entry.name);
    let out = || {
        damaged(format!(
            "the entry `{shown}` ({} bytes, header at {}) reaches beyond {end}, where the next one begins",
            entry.length, entry.header
        ))
    };
    let header_length = LOCAL_HEADER.1 + entry.name.len() as u64;
    if entry.header.checked_add(header_length).is_none_or(|header_end| header_end > end) {
        return Err(out());
    }
    let header = file.read_range(entry.header, header_length, "an entry's header")?;
    let name = &header[LOCAL_HEADER.1 as usize..];
    let lengths = [26, 28].map(|at| u64::from(u16_at(&header, at)));
    // Where sizes follow the data (flag 8), or in a zip64 field, the header has none.
    let sizes_fit = [18, 22].iter().all(|&at| {
        let said = u32_at(&header, at);
        entry.flags & 8 != 0 || said == IN_ZIP64 || u64::from(said) == entry.length
    });
    let fits =
        u32_at(&header, 0) == LOCAL_HEADER.0 && u16_at(&header, 8) == 0 && name == entry.name.as_bytes() && lengths[0] == name.len() as u64;
    if !fits || !sizes_fit {
        return Err(damaged(format!("the entry `{shown}` has another header than the zip directory says")));
    }
    let offset = entry.header + header_length + lengths[1];
    if offset.checked_add(entry.length).is_none_or(|data_end| data_end > end) {
        return Err(out());
    }
    Ok(Entry { offset, length: entry.length })
}

fn cut_off() -> Error {
    Error::new("the zip archive has no directory at its end").help("the file is cut off: download it again")
}

fn damaged(what: String) -> Error {
    Error::new(what).help("the file is damaged, or made to mislead: get it from its source again")
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
