//! One value of the file or of a variable to one typed value, and back to the text that an operator would write.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::address;
use super::schema::{
    DataMode, DeniedCommand, DivergencePolicy, DivergenceScripts, DivergenceSource, FailoverMode, InitializationPolicy,
    ListenAddress, LogFormat, ProbePolicy, Profile, RetryCeiling, Role, SamplingMode, TriggerName,
};
use super::secret::Secret;
use super::units::{parse_duration, parse_size, show_duration, show_size};
use crate::policy::Plan;

/// The environment, kept for `env:` secrets.
pub(super) type Variables = BTreeMap<String, String>;

/// What a key may hold. Errors are whole sentences without the key's name: the reader adds where it stands.
pub(super) trait Value: Sized {
    /// From a string of the file, or from an environment variable.
    fn from_text(text: &str, variables: &Variables) -> Result<Self, String>;

    /// From a value of the file; what is not a string is refused unless the type says otherwise.
    fn from_toml(value: &DeValue<'_>, variables: &Variables) -> Result<Self, String> {
        match value.as_str() {
            Some(text) => Self::from_text(text, variables),
            None => Err(format!("{} is expected here, in quotes, and this is {}", Self::kind(), found(value))),
        }
    }

    fn kind() -> String;

    /// As TOML.
    fn show(&self) -> String;

    /// The environment variable that the value refers to: it may begin with `STANDIN_` without being a key's.
    fn variable(&self) -> Option<&str> {
        None
    }
}

/// A size in bytes; a plain count is a `usize`.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct Size(pub(super) usize);

fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text in quotes",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl Value for Duration {
    fn from_text(text: &str, _: &Variables) -> Result<Self, String> {
        parse_duration(text)
    }

    fn from_toml(value: &DeValue<'_>, variables: &Variables) -> Result<Self, String> {
        match value {
            DeValue::String(text) => Self::from_text(text, variables),
            DeValue::Integer(number) => Self::from_text(&number.to_string(), variables),
            DeValue::Float(number) => Self::from_text(&number.to_string(), variables),
            other => Err(format!("a duration like \"250ms\" is expected here, and this is {}", found(other))),
        }
    }

    fn kind() -> String {
        "a duration".to_owned()
    }

    fn show(&self) -> String {
        format!("\"{}\"", show_duration(*self))
    }
}

impl Value for Size {
    fn from_text(text: &str, _: &Variables) -> Result<Self, String> {
        parse_size(text).map(Self)
    }

    fn from_toml(value: &DeValue<'_>, variables: &Variables) -> Result<Self, String> {
        match value {
            DeValue::String(text) => Self::from_text(text, variables),
            DeValue::Integer(number) => integer(number.as_str(), number.radix()).map(Self),
            other => Err(format!("a size like \"64MiB\" is expected here, and this is {}", found(other))),
        }
    }

    fn kind() -> String {
        "a size".to_owned()
    }

    fn show(&self) -> String {
        format!("\"{}\"", show_size(self.0))
    }
}

fn integer<N: TryFrom<i128>>(text: &str, radix: u32) -> Result<N, String> {
    let number = i128::from_str_radix(text, radix).ok().and_then(|number| N::try_from(number).ok());
    number.ok_or_else(|| format!("{text} is out of range here; write a smaller number that is not negative"))
}

macro_rules! whole_number {
    ($($kind:ty),*) => {$(
        impl Value for $kind {
            fn from_text(text: &str, _: &Variables) -> Result<Self, String> {
                match text.trim().parse::<i128>() {
                    Ok(_) => integer(text.trim(), 10),
                    Err(_) => Err(format!("\"{text}\" is not a whole number; write digits alone")),
                }
            }

            fn from_toml(value: &DeValue<'_>, _: &Variables) -> Result<Self, String> {
                match value {
                    DeValue::Integer(number) => integer(number.as_str(), number.radix()),
                    DeValue::String(_) => Err("a whole number is expected here; remove the quotes".to_owned()),
                    other => Err(format!("a whole number is expected here, and this is {}", found(other))),
                }
            }

            fn kind() -> String {
                "a whole number".to_owned()
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
whole_number!(u32, usize);

impl Value for f64 {
    fn from_text(text: &str, _: &Variables) -> Result<Self, String> {
        let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        number.ok_or_else(|| format!("\"{text}\" is not a number; write digits, with a point if needed"))
    }

    fn from_toml(value: &DeValue<'_>, variables: &Variables) -> Result<Self, String> {
        match value {
            DeValue::Integer(number) => integer::<i64>(number.as_str(), number.radix()).map(|number| number as Self),
            DeValue::Float(number) => Self::from_text(number.as_str(), variables),
            DeValue::String(_) => Err("a number is expected here; remove the quotes".to_owned()),
            other => Err(format!("a number is expected here, and this is {}", found(other))),
        }
    }

    fn kind() -> String {
        "a number".to_owned()
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Value for bool {
    fn from_text(text: &str, _: &Variables) -> Result<Self, String> {
        match text.trim() {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(format!("\"{other}\" is neither true nor false; write one of them")),
        }
    }

    fn from_toml(value: &DeValue<'_>, _: &Variables) -> Result<Self, String> {
        match value {
            DeValue::Boolean(value) => Ok(*value),
            DeValue::String(_) => Err("true or false is expected here; remove the quotes".to_owned()),
            other => Err(format!("true or false is expected here, and this is {}", found(other))),
        }
    }

    fn kind() -> String {
        "true or false".to_owned()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn from_text(text: &str, _: &Variables) -> Result<Self, String> {
        if text.is_empty() {
            return Err("this is empty; give a value, or remove the key".to_owned());
        }
        Ok(text.to_owned())
    }

    fn kind() -> String {
        "text".to_owned()
    }

    fn show(&self) -> String {
        toml::Value::String(self.clone()).to_string()
    }
}

impl Value for PathBuf {
    fn from_text(text: &str, variables: &Variables) -> Result<Self, String> {
        String::from_text(text, variables).map(Self::from)
    }

    fn kind() -> String {
        "a path".to_owned()
    }

    fn show(&self) -> String {
        self.to_string_lossy().into_owned().show()
    }
}

impl Value for Secret {
    fn from_text(text: &str, variables: &Variables) -> Result<Self, String> {
        Ok(Self::parse(text, |name| variables.get(name).cloned()))
    }

    fn kind() -> String {
        "a secret".to_owned()
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }

    fn variable(&self) -> Option<&str> {
        self.variable_name()
    }
}

impl Value for SocketAddr {
    fn from_text(text: &str, _: &Variables) -> Result<Self, String> {
        address::socket(text)
    }

    fn kind() -> String {
        "an address".to_owned()
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Value for ListenAddress {
    fn from_text(text: &str, _: &Variables) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) => address::unix(path).map(Self::Unix),
            None => address::socket(text).map(Self::Tcp),
        }
    }

    fn kind() -> String {
        "an address".to_owned()
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Value for DeniedCommand {
    fn from_text(text: &str, _: &Variables) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no command; write \"SHUTDOWN\", \"CONFIG SET\" or \"config|set\"");
        let upper = text.trim().to_ascii_uppercase();
        let mut words = upper.split(['|', ' ']).filter(|word| !word.is_empty()).map(str::to_owned);
        let command = words.next().ok_or_else(wrong)?;
        let denied = Self { command, subcommand: words.next() };
        let plain = upper.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" |-_.".contains(&byte));
        if words.next().is_some() || !plain { Err(wrong()) } else { Ok(denied) }
    }

    fn kind() -> String {
        "a command".to_owned()
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

/// In a variable the items are separated by commas; an empty variable is an empty list.
impl<T: Value> Value for Vec<T> {
    fn from_text(text: &str, variables: &Variables) -> Result<Self, String> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(|item| T::from_text(item, variables)).collect()
    }

    fn from_toml(value: &DeValue<'_>, variables: &Variables) -> Result<Self, String> {
        match value.as_array() {
            Some(items) => items.iter().map(|item| T::from_toml(item.get_ref(), variables)).collect(),
            None => Err(format!("a list is expected here, like [{}], and this is {}", "\"...\"", found(value))),
        }
    }

    fn kind() -> String {
        "a list".to_owned()
    }

    fn show(&self) -> String {
        format!("[{}]", self.iter().map(Value::show).collect::<Vec<_>>().join(", "))
    }
}

/// A closed set of words.
macro_rules! choice {
    ($kind:ty: $($word:literal => $value:expr),+) => {
        impl $kind {
            /// The word that stands for this value in the configuration.
            pub fn word(self) -> &'static str {
                $(if self == $value { return $word; })+
                unreachable!("every value has its word")
            }
        }

        impl Value for $kind {
            fn from_text(text: &str, _: &Variables) -> Result<Self, String> {
                $(if text == $word { return Ok($value); })+
                let words = [$($word),+].join("\" or \"");
                Err(format!("\"{text}\" is not known here; write \"{words}\""))
            }

            fn kind() -> String {
                ["one of \"", &[$($word),+].join("\", \""), "\""].concat()
            }

            fn show(&self) -> String {
                format!("\"{}\"", self.word())
            }
        }
    };
}

choice!(Role: "primary" => Self::Primary, "backup" => Self::Backup);
choice!(DataMode: "cold" => Self::Cold, "mirrored" => Self::Mirrored, "replica" => Self::Replica);
choice!(RetryCeiling:
    "read" => Self::Read, "last_write_wins" => Self::LastWriteWins, "checked" => Self::Checked,
    "accumulating" => Self::Accumulating);
choice!(Profile: "default" => Self::Default, "fast" => Self::Fast);
choice!(FailoverMode:
    "automatic" => Self::Automatic, "semi_automatic" => Self::SemiAutomatic, "manual" => Self::Manual);
choice!(TriggerName:
    "health_check" => Self::HealthCheck, "connection" => Self::Connection, "performance" => Self::Performance,
    "timeout" => Self::Timeout, "manual" => Self::Manual);
choice!(ProbePolicy: "all" => Self::All, "majority" => Self::Majority, "any" => Self::Any);
choice!(InitializationPolicy: "all" => Self::All, "majority" => Self::Majority, "one" => Self::One);
choice!(Plan:
    "immediate" => Self::Immediate, "drain" => Self::Drain, "blue_green" => Self::BlueGreen,
    "gradual" => Self::Gradual, "canary" => Self::Canary);
choice!(DivergencePolicy:
    "auto" => Self::Auto, "flush" => Self::Flush, "refuse" => Self::Refuse, "trust" => Self::Trust);
choice!(DivergenceSource: "commands" => Self::Commands, "tracking" => Self::Tracking);
choice!(DivergenceScripts: "declared" => Self::Declared, "unknown" => Self::Unknown);
choice!(SamplingMode: "off" => Self::Off, "report" => Self::Report, "repair" => Self::Repair);
choice!(LogFormat: "text" => Self::Text, "json" => Self::Json);
