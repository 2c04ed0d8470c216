//! Our media and disk writes, read by independent tools.
