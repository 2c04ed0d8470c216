//! Every command that the documentation prints is one that the command line takes. The
//! integration tests execute them.

mod text;

use super::args::{Cli, with_run};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use text::{commands, files, typed};

/// Parses it and runs nothing.
fn accepted(command: &str, whole: bool) -> Result<(), String> {
    let words = std::iter::once("flowrun".to_owned()).chain(typed(command));
    let Err(error) = Cli::try_parse_from(with_run(words.map(Into::into).collect())) else {
        return Ok(());
    };
    let is_short = !whole || command.contains("...");
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(()),
        ErrorKind::MissingRequiredArgument | ErrorKind::ValueValidation if is_short => Ok(()),
        _ => Err(error.to_string()),
    }
}

#[test]
fn every_command_of_the_documents_can_be_given() {
    let mut seen = 0;
    for file in files() {
        // A picture has none.
        let text = std::fs::read(&file).unwrap();
        let text = String::from_utf8(text).unwrap_or_default();
        for (command, whole) in commands(&text) {
            seen += 1;
            let wrong = accepted(&command, whole);
            assert_eq!(wrong, Ok(()), "{}: {command}", file.display());
        }
    }
    assert!(seen > 30, "only {seen} commands were found");
}

#[test]
fn every_example_of_the_help_can_be_given() {
    fn all(command: &clap::Command) -> Vec<String> {
        let own = command.get_after_help().map(ToString::to_string);
        let below = command.get_subcommands().flat_map(all);
        own.into_iter().chain(below).collect()
    }
    let mut seen = 0;
    for help in all(&Cli::command()) {
        for line in help.lines().filter_map(|l| l.strip_prefix("  flowrun ")) {
            seen += 1;
            // What an example does stands beside it, three columns away.
            let command = line.split("   ").next().unwrap_or_default();
            assert_eq!(accepted(command, true), Ok(()), "{line}");
        }
    }
    assert!(seen > 20, "only {seen} examples were found");
}

#[test]
fn a_flag_that_is_gone_is_found() {
    for (command, is_right) in [
        ("serve --listen 127.0.0.1:1", true),
        ("serve --lisen 127.0.0.1:1", false),
        ("node power X [on\\|reboot\\|…]", true),
        ("node power X [un\\|reboot\\|…]", false),
        ("check [FILES]   # all of them", true),
    ] {
        assert_eq!(accepted(command, true).is_ok(), is_right, "{command}");
    }
}
