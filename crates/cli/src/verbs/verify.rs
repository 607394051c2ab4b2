//! `deltaic verify`.

use deltaic_checkpoint::{Error, Result};
use deltaic_merge::checks::folder::Severity;
use deltaic_merge::verify::{Extent, Verified, verify};
use deltaic_merge::{MergeOptions, Progress};

use crate::arguments::Verify;
use crate::messages::{Messages, print};
use crate::progress::Bar;

/// Differing tensors that are named; of a wrong file all differ.
const MAX_NAMED: usize = 8;

pub fn run(arguments: &Verify, messages: &Messages) -> Result<()> {
    let extent = match (arguments.full, arguments.sample) {
        (true, _) => Extent::Full,
        (false, Some(share)) => Extent::Sample { share, seed: arguments.seed.unwrap_or_else(seed_of_now) },
        (false, None) => Extent::Checks,
    };
    let default = MergeOptions::default();
    let options = MergeOptions { threads: arguments.threads.map_or(default.threads, usize::from), ..default };
    let cancel = crate::signals::cancel_flag()?;
    let bar = Bar::new(messages.is_quiet());
    let verified = verify(&arguments.out, extent, &options, &cancel, &|progress: Progress| bar.update(progress));
    bar.finish();
    let verified = verified?;
    if arguments.json {
        print(&format!("{}\n", json(&verified, extent)));
    } else {
        verified.findings.iter().filter(|finding| finding.severity == Severity::Warning).for_each(|finding| {
            messages.warning(&finding.error.to_string());
        });
    }
    if !verified.is_sound() {
        return Err(unsound(&verified).within(&arguments.out));
    }
    if !arguments.json {
        print(&format!("{}  {}\n", arguments.out.display(), summary(&verified, extent)));
    }
    Ok(())
}

/// Each run looks at other places.
fn seed_of_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn summary(verified: &Verified, extent: Extent) -> String {
    let warnings = verified.findings.len();
    let checks = if warnings == 0 { "all checks passed".to_owned() } else { format!("sound, with {warnings} warnings") };
    match extent {
        Extent::Checks => checks,
        _ => format!("{checks}; {} of {} elements computed again, all equal", verified.recomputed, verified.elements),
    }
}

/// All that is wrong, in one message.
fn unsound(verified: &Verified) -> Error {
    let broken = verified.findings.iter().filter(|finding| finding.severity == Severity::Broken);
    let mut lines: Vec<String> = broken.map(|finding| finding.error.to_string()).collect();
    let differences = &verified.differences;
    lines.extend(differences.iter().take(MAX_NAMED).map(|difference| {
        let (tensor, elements, first) = (&difference.tensor, difference.elements, difference.first);
        format!("{tensor}: {elements} elements differ from what the sources give, the first at {first}")
    }));
    if differences.len() > MAX_NAMED {
        lines.push(format!("{} more tensors differ", differences.len() - MAX_NAMED));
    }
    let more = lines.len().saturating_sub(2 * MAX_NAMED);
    lines.truncate(2 * MAX_NAMED);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    let error = Error::new(lines.join("\n  "));
    if differences.is_empty() { error } else { error.help("the file was damaged or changed since: merge again, or fetch it again") }
}

fn json(verified: &Verified, extent: Extent) -> serde_json::Value {
    let findings = verified.findings.iter().map(|finding| {
        let severity = if finding.severity == Severity::Broken { "broken" } else { "warning" };
        serde_json::json!({"severity": severity, "message": finding.error.message()})
    });
    let differences = verified
        .differences
        .iter()
        .map(|found| serde_json::json!({"tensor": found.tensor, "first_element": found.first, "elements": found.elements}));
    let mut result = serde_json::json!({
        "sound": verified.is_sound(),
        "findings": findings.collect::<Vec<_>>(),
        "elements": verified.elements,
        "recomputed": verified.recomputed,
        "differences": differences.collect::<Vec<_>>(),
    });
    if let Extent::Sample { seed, .. } = extent {
        result["seed"] = seed.into();
    }
    result
}
