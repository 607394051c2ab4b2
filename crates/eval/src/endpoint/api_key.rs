//! The key that a server may want: it is sent, and shown nowhere.

use std::fmt;

use deltaic_checkpoint::{Error, Result};

/// Where a key is looked for when no variable is named.
const DEFAULT_VARIABLE: &str = "OPENAI_API_KEY";

/// A key for an endpoint. `Debug` does not show it.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// A key as it stands.
    ///
    /// # Errors
    /// A key that is empty or has what cannot stand in a header: anything but visible ASCII.
    pub fn new(key: impl Into<String>) -> Result<Self> {
        let key = key.into();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::new("the API key is empty or has characters that no key has").help("see for a stray space or line end"));
        }
        Ok(Self(key))
    }

    /// The key in the named environment variable, which then has to be set; without a name that in `OPENAI_API_KEY`, if any.
    ///
    /// # Errors
    /// The named variable is not set, or what it holds cannot be a key.
    pub fn from_environment(variable: Option<&str>) -> Result<Option<Self>> {
        let name = variable.unwrap_or(DEFAULT_VARIABLE);
        match std::env::var(name) {
            Ok(key) if !key.trim().is_empty() => {
                Self::new(key.trim()).map(Some).map_err(|error| error.with_message(format!("${name} holds no API key")))
            }
            Err(std::env::VarError::NotUnicode(_)) => Err(Error::new(format!("${name} holds no API key: it is not text"))),
            _ if variable.is_some() => {
                Err(Error::new(format!("${name} is not set, where the endpoint's API key was to be")).help(format!("`export {name}=…`")))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// A text in which the key, should a server have repeated it, is not there.
    pub(super) fn hide_in(&self, text: &str) -> String {
        text.replace(&self.0, "[API key]")
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_shown_and_cannot_add_header_lines() {
        let key = ApiKey::new("sk-secret").unwrap();
        assert!(!format!("{key:?}").contains("secret"));
        assert_eq!(key.hide_in("wrong key: sk-secret!"), "wrong key: [API key]!");
        let error = ApiKey::new("sk-secret\r\nX-Evil: 1").unwrap_err();
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn a_named_variable_has_to_be_set() {
        let error = ApiKey::from_environment(Some("DELTAIC_NO_SUCH_VARIABLE")).unwrap_err();
        assert!(error.message().contains("$DELTAIC_NO_SUCH_VARIABLE is not set"));
    }
}
