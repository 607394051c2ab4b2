//! The server's address out of what the user gave.

use std::net::IpAddr;

use deltaic_checkpoint::{Error, Result};
use ureq::http::Uri;

/// The address under which `/completions` lies: without a slash at its end; `/v1` is added where the path has no version in it.
///
/// # Errors
/// What is no `http` or `https` address, or has a user, a password, a query or a fragment in it.
pub(super) fn base(given: &str) -> Result<String> {
    // A password in the address is not repeated in a message.
    let shown = given.rsplit_once('@').map_or(given, |(_, host)| host);
    let wrong = |why: &str| Error::new(format!("endpoint `{shown}`: {why}")).help("give an address such as http://localhost:8000/v1");
    if given.contains('@') {
        return Err(wrong("a user or password stands in the address").help("give the key in an environment variable"));
    }
    if given.contains(['?', '#']) {
        return Err(wrong("the address has a query or a fragment, to which no path can be added"));
    }
    let uri: Uri = given.trim().parse().map_err(|error| wrong(&format!("this is no address: {error}")))?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(wrong("the address does not begin with http:// or https://"));
    };
    if authority.host().is_empty() {
        return Err(wrong("the address has no host"));
    }
    let mut path = uri.path().trim_end_matches('/');
    for call in ["/chat/completions", "/completions"] {
        path = path.strip_suffix(call).unwrap_or(path);
    }
    let is_version = |part: &str| part.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let version = if path.split('/').any(is_version) { "" } else { "/v1" };
    Ok(format!("{scheme}://{authority}{path}{version}"))
}

/// Whether an address is of this machine: no proxy can reach it.
pub(super) fn is_loopback(base: &str) -> bool {
    let Ok(uri) = base.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_with_and_without_its_version() {
        for (given, expected) in [
            ("http://localhost:8000", "http://localhost:8000/v1"),
            ("http://localhost:8000/", "http://localhost:8000/v1"),
            ("http://localhost:8000/v1", "http://localhost:8000/v1"),
            ("http://localhost:8000/v1/chat/completions", "http://localhost:8000/v1"),
            ("https://api.groq.com/openai/v1/", "https://api.groq.com/openai/v1"),
            ("https://openrouter.ai/api", "https://openrouter.ai/api/v1"),
            ("https://generativelanguage.googleapis.com/v1beta/openai/", "https://generativelanguage.googleapis.com/v1beta/openai"),
            ("http://[::1]:80/vllm", "http://[::1]:80/vllm/v1"),
        ] {
            assert_eq!(base(given).unwrap(), expected, "{given}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_showing_passwords() {
        for given in
            ["localhost:8000", "/v1", "ftp://host/v1", "", "http://", "http://a b/", "http://host/v1?key=1", "http://me:secret@host/v1"]
        {
            let error = base(given).expect_err(given).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for (address, expected) in [
            ("http://localhost:1/v1", true),
            ("http://127.0.0.2/v1", true),
            ("http://[::1]:80/v1", true),
            ("http://10.0.0.1/v1", false),
            ("https://localhost.evil/v1", false),
        ] {
            assert_eq!(is_loopback(address), expected, "{address}");
        }
    }
}
