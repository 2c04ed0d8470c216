//! Image to LUN: planning, writing, verifying.
