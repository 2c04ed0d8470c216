//! Lua's own compilation of a file, read back: what `luac -l` prints.
//!
//! The compiler knows which names are locals and on which line each operation stands. The format
//! is that of Lua 5.4's `ldump.c` and `lopcodes.h`; another version does not get past the header.

use crate::error::{Error, Kind, Result};
use serde_json::Value;

/// `\x1bLua`, version 5.4, format 0, the check bytes, sizes of instruction, integer and number.
const HEADER: &[u8] = b"\x1bLua\x54\0\x19\x93\r\n\x1a\n\x04\x08\x08";
/// The check values of both kinds of numbers, and the number of upvalues.
const AFTER_HEADER: usize = 8 + 8 + 1;
const ABSOLUTE_LINE: u8 = 0x80;

/// A function as it was compiled.
#[derive(Debug)]
pub(super) struct Proto {
    pub(super) code: Vec<Instruction>,
    /// The line of each instruction.
    pub(super) lines: Vec<u32>,
    /// Constants; what is no data is null.
    pub(super) constants: Vec<Value>,
    /// Whether the upvalue is a register of the function around, and which; else which upvalue.
    pub(super) upvalues: Vec<(bool, usize)>,
    pub(super) upvalue_names: Vec<String>,
    pub(super) protos: Vec<Self>,
}

/// One instruction, 32 bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Instruction(u32);

impl Instruction {
    pub(super) fn op(self) -> u8 {
        self.byte(0) & 0x7f
    }

    pub(super) fn a(self) -> usize {
        (self.0 >> 7 & 0xff) as usize
    }

    pub(super) fn b(self) -> usize {
        usize::from(self.byte(2))
    }

    pub(super) fn c(self) -> usize {
        usize::from(self.byte(3))
    }

    pub(super) fn k(self) -> bool {
        self.0 >> 15 & 1 == 1
    }

    pub(super) fn bx(self) -> usize {
        (self.0 >> 15) as usize
    }

    /// `Bx` as a signed number.
    pub(super) fn sbx(self) -> i64 {
        i64::from(self.0 >> 15) - 0xffff
    }

    /// A jump's distance.
    pub(super) fn sj(self) -> i64 {
        i64::from(self.0 >> 7) - 0xff_ffff
    }

    pub(super) fn ax(self) -> usize {
        (self.0 >> 7) as usize
    }

    fn byte(self, index: usize) -> u8 {
        self.0.to_le_bytes().get(index).copied().unwrap_or(0)
    }
}

/// The main function of a compiled chunk, with its lines.
pub(super) fn read(dumped: &[u8]) -> Result<Proto> {
    let body = dumped
        .strip_prefix(HEADER)
        .and_then(|rest| rest.get(AFTER_HEADER..));
    let mut reader = body.map(Reader);
    let proto = reader.as_mut().and_then(|reader| reader.function());
    proto.ok_or_else(|| Error::new(Kind::Internal, "not the bytecode of Lua 5.4"))
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes(1)?.first().copied()
    }

    fn eight(&mut self) -> Option<[u8; 8]> {
        self.bytes(8)?.try_into().ok()
    }

    /// Seven bits a byte, highest first; the last one has its top bit set.
    fn size(&mut self) -> Option<usize> {
        let mut size: usize = 0;
        loop {
            let byte = self.byte()?;
            size = size.checked_mul(128)? | usize::from(byte & 0x7f);
            if byte & 0x80 != 0 {
                return Some(size);
            }
        }
    }

    fn text(&mut self) -> Option<String> {
        let length = self.size()?.saturating_sub(1);
        Some(String::from_utf8_lossy(self.bytes(length)?).into_owned())
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.size()?;
        (0..count).map(|_| item(self)).collect()
    }

    fn function(&mut self) -> Option<Proto> {
        self.text()?; // source
        let first_line = self.size()?;
        self.size()?; // last line
        self.bytes(3)?; // parameters, vararg, stack
        let code = self.list(|r| {
            let word = r.bytes(4)?.try_into().ok()?;
            Some(Instruction(u32::from_le_bytes(word)))
        })?;
        let constants = self.list(Self::constant)?;
        let upvalues = self.list(|r| {
            let [in_stack, index, _] = r.bytes(3)? else {
                return None;
            };
            Some((*in_stack != 0, usize::from(*index)))
        })?;
        let protos = self.list(Self::function)?;
        let lines = self.lines(u32::try_from(first_line).ok()?)?;
        self.list(|r| {
            r.text()?;
            r.size()?;
            r.size()
        })?; // local variables
        let upvalue_names = self.list(Self::text)?;
        Some(Proto {
            code,
            lines,
            constants,
            upvalues,
            upvalue_names,
            protos,
        })
    }

    fn constant(&mut self) -> Option<Value> {
        Some(match self.byte()? {
            0x01 => Value::Bool(false),
            0x11 => Value::Bool(true),
            0x03 => Value::from(i64::from_le_bytes(self.eight()?)),
            0x13 => Value::from(f64::from_le_bytes(self.eight()?)),
            0x04 | 0x14 => Value::String(self.text()?),
            0x00 => Value::Null,
            _ => return None,
        })
    }

    /// Each line is told as the distance to the one before, or absolutely in a list that follows.
    fn lines(&mut self, first: u32) -> Option<Vec<u32>> {
        let steps = self.list(Self::byte)?;
        let absolute = self.list(|r| Some((r.size()?, r.size()?)))?;
        let mut line = first;
        let lines = steps.iter().enumerate().map(|(pc, step)| {
            line = if *step == ABSOLUTE_LINE {
                let (_, line) = absolute.iter().find(|(at, _)| *at == pc)?;
                u32::try_from(*line).ok()?
            } else {
                line.checked_add_signed(i32::from(step.cast_signed()))?
            };
            Some(line)
        });
        lines.collect()
    }
}
