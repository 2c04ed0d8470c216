//! Standard output. A reader that went away (`flowrun runs | head`) is no reason to crash, nor for
//! a run to end.

use std::fmt::Arguments;
use std::io::Write;

/// Prints a line.
macro_rules! out {
    () => {
        $crate::cli::output::write(format_args!("\n"))
    };
    ($($text:tt)*) => {
        $crate::cli::output::write(format_args!("{}\n", format_args!($($text)*)))
    };
}

/// Prints text as it is.
macro_rules! put {
    ($($text:tt)*) => {
        $crate::cli::output::write(format_args!($($text)*))
    };
}

pub(super) use {out, put};

pub(super) fn write(text: Arguments<'_>) {
    drop(std::io::stdout().lock().write_fmt(text));
}
