//! What is wrong with a configuration: all of it at once, each with its place and what to do.

use std::fmt;

/// Every error of one configuration, in the order of the file, the environment's last. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigError {
    pub origin: Origin,
    /// Path of the key, like `backend[1].address`; empty when the file as a whole is meant.
    pub key: String,
    /// What is wrong and what to do about it. Never the value of a secret.
    pub message: String,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// `line` counts from 1; absent for what is missing.
    File { name: String, line: Option<usize> },
    /// An environment variable, by its name.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line: Some(line) } => write!(f, "{name}:{line}"),
            Self::File { name, line: None } => f.write_str(name),
            Self::Variable(name) => write!(f, "environment {name}"),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.key.as_str()) {
            (origin @ Origin::File { .. }, key) if !key.is_empty() => write!(f, "{origin}: {key}: {}", self.message),
            // A variable's name says the key already.
            (origin, _) => write!(f, "{origin}: {}", self.message),
        }
    }
}

/// One error a line.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
impl std::error::Error for ConfigErrors {}
