//! The table of characters in a sentencepiece model: a trie of UTF-8 bytes whose leaves are offsets of replacements.
//!
//! A map is the trie's length in bytes (u32, little endian), the trie's units (u32), and the replacements, each ended by a zero byte. A unit is
//! that of Darts-clone (Yata 2013): bits 0 to 7 the byte that leads to it, bit 8 whether a leaf follows, bits 9 to 30 the offset to its
//! children, or in a leaf the value. The readers of the `tokenizers` crate follow offsets unchecked, so a map is checked once, before.

/// Checks that no text can lead a reader of the map out of it.
///
/// # Errors
/// What is wrong.
pub(crate) fn check_charsmap(map: &[u8]) -> Result<(), String> {
    let damaged = |what: &str| Err(format!("the character map of the normalizer is damaged: {what}"));
    let Some((length, rest)) = map.split_first_chunk::<4>() else { return damaged("it has no length") };
    let length = u32::from_le_bytes(*length) as usize;
    let Some((trie, replacements)) = rest.split_at_checked(length / 4 * 4) else { return damaged("it is shorter than its trie") };
    let Ok(replacements) = std::str::from_utf8(replacements) else { return damaged("its replacements are not UTF-8") };
    let units: Vec<u32> = trie.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]])).collect();
    let Some(root) = units.first() else { return damaged("its trie is empty") };

    // Each place is looked at once, so that time and memory are bounded by the trie's length.
    let (mut open, mut seen) = (vec![offset(*root)], vec![false; units.len()]);
    while let Some(children) = open.pop() {
        // The readers look at the unit of every byte that a text may have, whether it is a child or not.
        for byte in 1..=255 {
            let Some(unit) = units.get(children ^ byte) else { return damaged("its trie leads out of itself") };
            if *unit & (1 << 31 | 0xff) != byte as u32 {
                continue;
            }
            let next = children ^ byte ^ offset(*unit);
            let Some(seen) = seen.get_mut(next) else { return damaged("its trie leads out of itself") };
            if *unit >> 8 & 1 == 1 && !replacements.is_char_boundary((units[next] & !(1 << 31)) as usize) {
                return damaged("its trie leads out of its replacements");
            }
            if !std::mem::replace(seen, true) {
                open.push(next);
            }
        }
    }
    Ok(())
}

/// From a unit's place to where its children are, by exclusive or.
fn offset(unit: u32) -> usize {
    (unit as usize >> 10) << ((unit as usize & 1 << 9) >> 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trie that replaces `a` by the text at `value`.
    fn map(value: u32, replacements: &[u8]) -> Vec<u8> {
        // The root's children begin at 256 (offset 1 << 8, by bit 9), those of `a` at the 512 beside its place.
        let mut units = vec![0u32; 1024];
        units[0] = 1 << 10 | 1 << 9;
        units[256 ^ 0x61] = 0x61 | 1 << 8 | 2 << 10 | 1 << 9;
        units[256 ^ 0x61 ^ 512] = 1 << 31 | value;
        let trie: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        [&(trie.len() as u32).to_le_bytes()[..], &trie, replacements].concat()
    }

    #[test]
    fn a_sound_map_passes_and_the_reader_agrees_with_its_layout() {
        let map = map(3, b"xy\0AB\0");
        check_charsmap(&map).unwrap();
        let reader = tokenizers::normalizers::Precompiled::from(&map).unwrap();
        assert_eq!(reader.normalize_string("cab"), "cABb");
    }

    #[test]
    fn maps_that_lead_out_of_themselves_are_refused() {
        let sound = map(3, b"xy\0AB\0");
        for cut in [0, 3, 4, 100, sound.len() - 6 - 4] {
            assert!(check_charsmap(&sound[..cut]).is_err(), "{cut}");
        }
        assert!(check_charsmap(&map(7, b"xy\0AB\0")).unwrap_err().contains("replacements"));
        assert!(check_charsmap(&map(1, "é\0".as_bytes())).unwrap_err().contains("replacements"));
        let mut far = sound.clone();
        far[4..8].copy_from_slice(&(1u32 << 30 | 1 << 9).to_le_bytes());
        assert!(check_charsmap(&far).unwrap_err().contains("leads out"));
        assert!(check_charsmap(&[0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
