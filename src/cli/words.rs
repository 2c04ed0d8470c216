//! The words of an enumeration of the model, for the command line: listed once, where it is
//! declared.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use serde::Deserialize;
use serde::de::value::Error;
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};

/// Parses a variant of `T`, spelled as serde does or with hyphens, and lists them in the help.
pub(super) fn words<T>() -> impl TypedValueParser<Value = T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    let values = variants::<T>().iter().map(|word| {
        // Kept for the life of the program, as clap wants it.
        let spelled: &'static str = word.replace('_', "-").leak();
        let value = PossibleValue::new(spelled);
        match spelled == *word {
            true => value,
            false => value.alias(*word),
        }
    });
    PossibleValuesParser::new(values).try_map(|given| {
        let word = given.replace('-', "_");
        let word: serde::de::value::StringDeserializer<Error> = word.into_deserializer();
        T::deserialize(word)
    })
}

/// What serde calls the variants of `T`, by asking it to read one.
fn variants<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut found: &'static [&'static str] = &[];
    drop(T::deserialize(Asked(&mut found)));
    found
}

/// Notes which variants are asked for, and has none.
struct Asked<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("not an enumeration"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = variants;
        Err(Error::custom("only the names were asked for"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ilo::model::PowerTarget;

    #[test]
    fn the_model_s_words_are_the_command_line_s() {
        let known = variants::<PowerTarget>();
        assert!(
            known.contains(&"on") && known.contains(&"force_off"),
            "{known:?}"
        );
        let command =
            clap::Command::new("t").arg(clap::Arg::new("w").value_parser(words::<PowerTarget>()));
        let parse = |word: &str| {
            let matches = command.clone().try_get_matches_from(["t", word]).ok()?;
            matches.get_one::<PowerTarget>("w").copied()
        };
        for word in known {
            let spelled = parse(&word.replace('_', "-"));
            assert!(spelled.is_some() && parse(word) == spelled, "{word}");
        }
        assert_eq!(parse("force-off"), Some(PowerTarget::ForceOff));
        assert_eq!(parse("of"), None);
    }
}
