//! The model seen as data: for every key its name, shape, description and default.
//!
//! ```text
//!   section! { pub struct … }  ──▶ the struct, as written, for serde
//!                              └─▶ FIELDS ──▶ unknown and missing keys, types, overrides, the reference
//! ```
//!
//! One declaration gives both, so neither can know a key that the other does not.

use crate::{ByteSize, Secret, TablePatterns};
use std::path::PathBuf;

/// One key of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// Its name in the file.
    pub(crate) key: &'static str,
    /// The description, line by line.
    pub(crate) doc: &'static [&'static str],
    pub(crate) shape: Shape,
    /// Whether there is no configuration without it.
    pub(crate) required: bool,
    /// What a value may look like, where the default does not show it.
    pub(crate) example: Option<&'static str>,
}

impl Field {
    /// The description as one line.
    pub(crate) fn description(&self) -> String {
        self.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
    }
}

/// What values a key takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    Text,
    /// Text that is never shown.
    Secret,
    Path,
    Flag,
    /// An integer from 0 to this.
    Number(u64),
    /// A number of bytes, see [`crate::parse_bytes`].
    Size,
    List,
    Choice(&'static [Choice]),
    Table(&'static [Field]),
    /// The array of tables `[[sink]]`.
    Sinks,
}

impl Shape {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text | Self::Secret => "a text",
            Self::Path => "a path",
            Self::Flag => "true or false",
            Self::Number(_) => "an integer",
            Self::Size => "a size such as \"256MiB\", or a number of bytes",
            Self::List => "a list of texts",
            Self::Choice(_) => "one of a few words",
            Self::Table(_) => "a table",
            Self::Sinks => "tables that begin with [[sink]]",
        }
    }
}

/// One of the words that a key may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) word: &'static str,
    pub(crate) doc: &'static [&'static str],
}

impl Choice {
    pub(crate) fn description(&self) -> String {
        self.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
    }
}

/// A table with fixed keys.
pub(crate) trait Section {
    const FIELDS: &'static [Field];

    /// The value of each of [`Section::FIELDS`] as TOML; `None` for one that is absent or secret.
    fn literals(&self) -> Vec<Option<String>>;
}

/// A type that keys have.
pub(crate) trait Setting {
    const SHAPE: Shape;

    /// The value as TOML; `None` when it is absent or secret.
    fn literal(&self) -> Option<String>;
}

impl Setting for String {
    const SHAPE: Shape = Shape::Text;

    fn literal(&self) -> Option<String> {
        Some(toml::Value::String(self.clone()).to_string())
    }
}

impl Setting for Secret {
    const SHAPE: Shape = Shape::Secret;

    fn literal(&self) -> Option<String> {
        None
    }
}

impl Setting for PathBuf {
    const SHAPE: Shape = Shape::Path;

    fn literal(&self) -> Option<String> {
        self.to_string_lossy().into_owned().literal()
    }
}

impl Setting for bool {
    const SHAPE: Shape = Shape::Flag;

    fn literal(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for u32 {
    const SHAPE: Shape = Shape::Number(u32::MAX as u64);

    fn literal(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for u64 {
    /// TOML's integers end at 2^63 - 1.
    const SHAPE: Shape = Shape::Number(i64::MAX as u64);

    fn literal(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for usize {
    const SHAPE: Shape = Shape::Number(isize::MAX as u64);

    fn literal(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for ByteSize {
    const SHAPE: Shape = Shape::Size;

    fn literal(&self) -> Option<String> {
        self.to_string().literal()
    }
}

impl Setting for TablePatterns {
    const SHAPE: Shape = Shape::List;

    fn literal(&self) -> Option<String> {
        Some(toml::Value::from(self.0.clone()).to_string())
    }
}

impl<T: Setting> Setting for Option<T> {
    const SHAPE: Shape = T::SHAPE;

    fn literal(&self) -> Option<String> {
        self.as_ref().and_then(T::literal)
    }
}

/// `{ key = value, … }` of the keys that have a value.
pub(crate) fn inline_table<T: Section>(table: &T) -> Option<String> {
    let pairs = T::FIELDS.iter().zip(table.literals());
    let pairs: Vec<_> =
        pairs.filter_map(|(field, value)| Some(format!("{} = {}", field.key, value?))).collect();
    (!pairs.is_empty()).then(|| format!("{{ {} }}", pairs.join(", ")))
}

/// Declares a table: the struct as written, and its [`Section`].
///
/// Between description and serde attributes a field may have `#[required("example")]`, for a key that has no
/// default and may not be empty, or `#[example("example")]`, for one whose default shows nothing; and
/// `#[key("name")]` where serde renames it.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $(#[derive($($derive:tt)*)])*
        $(#[serde($($container:tt)*)])*
        $visibility:vis struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $(#[required($required:literal)])?
                $(#[example($example:literal)])?
                $(#[key($key:literal)])?
                $(#[serde($($attribute:tt)*)])*
                $scope:vis $field:ident: $type:ty,
            )*
        }
    ) => {
        $(#[doc = $about])*
        $(#[derive($($derive)*)])*
        $(#[serde($($container)*)])*
        $visibility struct $name {
            $(
                $(#[doc = $doc])*
                $(#[serde($($attribute)*)])*
                $scope $field: $type,
            )*
        }

        impl $crate::schema::Section for $name {
            const FIELDS: &'static [$crate::schema::Field] = &[$($crate::schema::Field {
                key: [$($key,)? stringify!($field)][0],
                doc: &[$($doc),*],
                shape: <$type as $crate::schema::Setting>::SHAPE,
                required: !<[&str]>::is_empty(&[$($required)?]),
                example: <[&'static str]>::first(&[$($required,)? $($example,)?]).copied(),
            }),*];

            fn literals(&self) -> Vec<Option<String>> {
                vec![$($crate::schema::Setting::literal(&self.$field)),*]
            }
        }

        impl $crate::schema::Setting for $name {
            const SHAPE: $crate::schema::Shape =
                $crate::schema::Shape::Table(<Self as $crate::schema::Section>::FIELDS);

            fn literal(&self) -> Option<String> {
                $crate::schema::inline_table(self)
            }
        }
    };
}

/// Declares a key's words: the enum, and its [`Setting`].
macro_rules! choice {
    (
        $(#[doc = $about:literal])*
        pub enum $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $variant:ident = $word:literal,
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
        pub enum $name {
            $(
                $(#[doc = $doc])*
                #[serde(rename = $word)]
                $variant,
            )*
        }

        impl $name {
            /// As it is written.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl $crate::schema::Setting for $name {
            const SHAPE: $crate::schema::Shape = $crate::schema::Shape::Choice(&[
                $($crate::schema::Choice { word: $word, doc: &[$($doc),*] }),*
            ]);

            fn literal(&self) -> Option<String> {
                $crate::schema::Setting::literal(&self.word().to_owned())
            }
        }
    };
}

pub(crate) use {choice, section};
