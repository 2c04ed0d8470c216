//! What a compiled file does to names: followed through registers in a straight line, and
//! forgotten where two ways meet. What is not known for sure is not told.

use super::listing::{Instruction, Proto};
use serde_json::Value;

/// What is known of a register.
#[derive(Debug, Clone, Default)]
pub(super) enum Known {
    #[default]
    Nothing,
    /// Text, number, boolean or nil that the file spells out.
    Data(Value),
    /// A global (`step`), or a field of one (`ilo.info`).
    Global(Vec<String>),
    /// What `require` answered for this name.
    Module(String),
    /// A field of a module.
    OfModule,
    /// A table constructor.
    Table(Table),
}

/// A table as its constructor spells it.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) fields: Vec<(String, Known, u32)>,
    pub(super) items: Vec<Known>,
    /// Whether it may get more than is seen.
    pub(super) open: bool,
}

/// Something that can be right or wrong.
#[derive(Debug)]
pub(super) enum Fact {
    /// A global is read, or a field of one.
    Read { path: Vec<String>, line: u32 },
    /// A global is assigned.
    Assigned { name: String, line: u32 },
    /// A field of a module is read.
    ModuleField {
        module: String,
        name: String,
        line: u32,
    },
    /// A function of the environment is called. `open`: with more arguments than are seen.
    Called {
        path: Vec<String>,
        args: Vec<Known>,
        open: bool,
        line: u32,
    },
    /// A function of the environment is called with a colon.
    Method { path: Vec<String>, line: u32 },
}

impl Known {
    /// The data, if all of it is known.
    pub(super) fn data(&self) -> Option<Value> {
        match self {
            Self::Data(value) => Some(value.clone()),
            Self::Table(table) if !table.open => match table.items.is_empty() {
                true => {
                    let fields = table.fields.iter();
                    let fields = fields.map(|(name, known, _)| Some((name.clone(), known.data()?)));
                    fields.collect::<Option<_>>().map(Value::Object)
                }
                false if table.fields.is_empty() => table
                    .items
                    .iter()
                    .map(Self::data)
                    .collect::<Option<_>>()
                    .map(Value::Array),
                false => None,
            },
            _ => None,
        }
    }

    /// Copied to another name, a table may be filled under either.
    fn shared(&self) -> Self {
        match self {
            Self::Table(table) => Self::Table(Table {
                open: true,
                ..table.clone()
            }),
            other => other.clone(),
        }
    }

    /// What a function inside still knows of it: what cannot change.
    fn captured(&self) -> Self {
        match self {
            Self::Global(_) | Self::Module(_) => self.clone(),
            _ => Self::Nothing,
        }
    }
}

/// The facts of a file's main function and all functions in it.
pub(super) fn of(main: &Proto) -> Vec<Fact> {
    let mut facts = Vec::new();
    let environment = vec![Known::Nothing; main.upvalues.len()];
    Walk::new(main, environment, &mut facts).walk();
    facts
}

/// The upvalues that a function or one inside it assigns.
fn assigned(proto: &Proto) -> Vec<usize> {
    let own = proto
        .code
        .iter()
        .filter(|i| i.op() == op::SETUPVAL)
        .map(|i| i.b());
    let mut all: Vec<usize> = own.collect();
    for inner in &proto.protos {
        let outer = assigned(inner).into_iter();
        let outer = outer.filter_map(|index| inner.upvalues.get(index));
        all.extend(
            outer
                .filter(|(in_stack, _)| !in_stack)
                .map(|(_, index)| *index),
        );
    }
    all
}

/// Numbers of `lopcodes.h`.
mod op {
    pub(super) const MOVE: u8 = 0;
    pub(super) const LOADI: u8 = 1;
    pub(super) const LOADF: u8 = 2;
    pub(super) const LOADK: u8 = 3;
    pub(super) const LOADKX: u8 = 4;
    pub(super) const LOADFALSE: u8 = 5;
    pub(super) const LFALSESKIP: u8 = 6;
    pub(super) const LOADTRUE: u8 = 7;
    pub(super) const LOADNIL: u8 = 8;
    pub(super) const GETUPVAL: u8 = 9;
    pub(super) const SETUPVAL: u8 = 10;
    pub(super) const GETTABUP: u8 = 11;
    pub(super) const GETFIELD: u8 = 14;
    pub(super) const SETTABUP: u8 = 15;
    pub(super) const SETTABLE: u8 = 16;
    pub(super) const SETI: u8 = 17;
    pub(super) const SETFIELD: u8 = 18;
    pub(super) const NEWTABLE: u8 = 19;
    pub(super) const SELF: u8 = 20;
    pub(super) const MMBIN: u8 = 46;
    pub(super) const MMBINK: u8 = 48;
    pub(super) const CLOSE: u8 = 54;
    pub(super) const JMP: u8 = 56;
    pub(super) const EQ: u8 = 57;
    pub(super) const TEST: u8 = 66;
    pub(super) const TESTSET: u8 = 67;
    pub(super) const CALL: u8 = 68;
    pub(super) const TAILCALL: u8 = 69;
    pub(super) const RETURN: u8 = 70;
    pub(super) const RETURN1: u8 = 72;
    pub(super) const FORLOOP: u8 = 73;
    pub(super) const FORPREP: u8 = 74;
    pub(super) const TFORPREP: u8 = 75;
    pub(super) const TFORCALL: u8 = 76;
    pub(super) const TFORLOOP: u8 = 77;
    pub(super) const SETLIST: u8 = 78;
    pub(super) const CLOSURE: u8 = 79;
    pub(super) const VARARG: u8 = 80;
    pub(super) const EXTRAARG: u8 = 82;
}

/// Where an instruction may go besides to the next one.
fn target(pc: usize, i: Instruction) -> Option<usize> {
    let next = pc + 1;
    match i.op() {
        op::JMP => usize::try_from(i64::try_from(next).ok()? + i.sj()).ok(),
        op::LFALSESKIP | op::EQ..=op::TESTSET => Some(pc + 2),
        op::FORLOOP | op::TFORLOOP => next.checked_sub(i.bx()),
        op::FORPREP => Some(next + i.bx() + 1),
        op::TFORPREP => Some(next + i.bx()),
        _ => None,
    }
}

/// The registers that an instruction may change: from, and to (all above, if there is no end).
fn written(i: Instruction) -> Option<(usize, Option<usize>)> {
    let a = i.a();
    match i.op() {
        op::SETUPVAL | op::SETTABUP..=op::SETFIELD | op::MMBIN..=op::MMBINK => None,
        op::CLOSE..=op::TEST | op::RETURN..=op::RETURN1 | op::SETLIST | op::EXTRAARG => None,
        op::LOADNIL => Some((a, Some(a + i.b()))),
        op::SELF => Some((a, Some(a + 1))),
        op::CALL | op::TAILCALL | op::VARARG | op::TFORCALL => Some((a, None)),
        op::FORLOOP | op::FORPREP | op::TFORLOOP | op::TFORPREP => Some((a, Some(a + 4))),
        _ => Some((a, Some(a))),
    }
}

struct Walk<'a> {
    proto: &'a Proto,
    registers: Vec<Known>,
    upvalues: Vec<Known>,
    facts: &'a mut Vec<Fact>,
}

impl<'a> Walk<'a> {
    fn new(proto: &'a Proto, upvalues: Vec<Known>, facts: &'a mut Vec<Fact>) -> Self {
        Self {
            proto,
            registers: vec![Known::Nothing; 256 + 8],
            upvalues,
            facts,
        }
    }

    fn walk(mut self) {
        let code = &self.proto.code;
        let jumps = code.iter().enumerate();
        let jumps: Vec<(usize, usize)> = jumps
            .filter_map(|(pc, i)| Some((pc, target(pc, *i)?)))
            .collect();
        for (pc, i) in code.iter().enumerate() {
            for (from, to) in jumps.iter().filter(|(_, to)| *to == pc) {
                let passed = match from < to {
                    true => code.get(*from..*to),
                    false => code.get(*to..=*from),
                };
                for passed in passed.unwrap_or_default() {
                    self.forget(*passed);
                }
            }
            self.step(pc, *i);
        }
    }

    fn forget(&mut self, i: Instruction) {
        if let Some((from, to)) = written(i) {
            let to = to.unwrap_or(self.registers.len() - 1);
            for register in self.registers.iter_mut().take(to + 1).skip(from) {
                *register = Known::Nothing;
            }
        }
    }

    fn register(&self, index: usize) -> &Known {
        self.registers.get(index).unwrap_or(&Known::Nothing)
    }

    fn set(&mut self, index: usize, known: Known) {
        if let Some(register) = self.registers.get_mut(index) {
            *register = known;
        }
    }

    fn constant(&self, index: usize) -> Known {
        let constant = self.proto.constants.get(index);
        constant.map_or(Known::Nothing, |value| Known::Data(value.clone()))
    }

    fn text(&self, index: usize) -> Option<String> {
        let constant = self.proto.constants.get(index)?;
        constant.as_str().map(str::to_owned)
    }

    /// A register, or a constant if the instruction says so.
    fn either(&self, i: Instruction) -> Known {
        match i.k() {
            true => self.constant(i.c()),
            false => self.register(i.c()).clone(),
        }
    }

    fn is_environment(&self, upvalue: usize) -> bool {
        self.proto
            .upvalue_names
            .get(upvalue)
            .is_some_and(|name| name == "_ENV")
    }

    fn step(&mut self, pc: usize, i: Instruction) {
        let line = self.proto.lines.get(pc).copied().unwrap_or_default();
        let a = i.a();
        let known = match i.op() {
            op::MOVE => self.register(i.b()).shared(),
            op::LOADI => Known::Data(Value::from(i.sbx())),
            op::LOADF => Known::Data(Value::from(f64::from(i32::try_from(i.sbx()).unwrap_or(0)))),
            op::LOADK => self.constant(i.bx()),
            op::LOADKX => {
                let next = self.proto.code.get(pc + 1);
                next.map_or(Known::Nothing, |extra| self.constant(extra.ax()))
            }
            op::LOADFALSE | op::LFALSESKIP => Known::Data(Value::Bool(false)),
            op::LOADTRUE => Known::Data(Value::Bool(true)),
            op::GETUPVAL => self.upvalues.get(i.b()).cloned().unwrap_or_default(),
            op::GETTABUP => self.upvalue_field(i, line),
            op::GETFIELD => {
                let name = self.text(i.c()).unwrap_or_default();
                self.field(self.register(i.b()).clone(), name, line)
            }
            op::NEWTABLE => Known::Table(Table::default()),
            op::SELF => return self.method(i, line),
            op::SETTABUP => {
                if let (true, Some(name)) = (self.is_environment(a), self.text(i.b())) {
                    self.facts.push(Fact::Assigned { name, line });
                }
                return;
            }
            op::SETFIELD => return self.set_field(i, line),
            op::SETTABLE | op::SETI => return self.opened(a),
            op::SETLIST => return self.set_list(i),
            op::CALL | op::TAILCALL => return self.call(i, line),
            op::CLOSURE => {
                self.closure(i);
                Known::Nothing
            }
            _ => return self.forget(i),
        };
        self.set(a, known);
    }

    /// A field of an upvalue, which is a global if that is the environment.
    fn upvalue_field(&mut self, i: Instruction, line: u32) -> Known {
        let Some(name) = self.text(i.c()) else {
            return Known::Nothing;
        };
        if !self.is_environment(i.b()) {
            let of = self.upvalues.get(i.b()).cloned().unwrap_or_default();
            return self.field(of, name, line);
        }
        let path = vec![name];
        self.facts.push(Fact::Read {
            path: path.clone(),
            line,
        });
        Known::Global(path)
    }

    /// The field `name` of `of`.
    fn field(&mut self, of: Known, name: String, line: u32) -> Known {
        match of {
            Known::Global(mut path) if path.len() == 1 => {
                path.push(name);
                self.facts.push(Fact::Read {
                    path: path.clone(),
                    line,
                });
                Known::Global(path)
            }
            Known::Module(module) => {
                self.facts.push(Fact::ModuleField { module, name, line });
                Known::OfModule
            }
            _ => Known::Nothing,
        }
    }

    fn method(&mut self, i: Instruction, line: u32) {
        let object = self.register(i.b()).shared();
        let name = match i.k() {
            true => self.text(i.c()),
            false => self
                .register(i.c())
                .data()
                .and_then(|v| v.as_str().map(str::to_owned)),
        };
        let function = self.field(object.clone(), name.unwrap_or_default(), line);
        if let Known::Global(path) = function {
            self.facts.push(Fact::Method { path, line });
        }
        // Its call has one more argument than is written: not followed.
        self.set(i.a(), Known::Nothing);
        self.set(i.a() + 1, object);
    }

    fn set_field(&mut self, i: Instruction, line: u32) {
        let (name, value) = (self.text(i.b()), self.either(i));
        if let (Some(Known::Table(table)), Some(name)) = (self.registers.get_mut(i.a()), name) {
            table.fields.push((name, value, line));
        }
    }

    /// A table gets what is not seen.
    fn opened(&mut self, register: usize) {
        if let Some(Known::Table(table)) = self.registers.get_mut(register) {
            table.open = true;
        }
    }

    fn set_list(&mut self, i: Instruction) {
        let (a, count) = (i.a(), i.b());
        let items: Vec<_> = (1..=count).map(|n| self.register(a + n).clone()).collect();
        if let Some(Known::Table(table)) = self.registers.get_mut(a) {
            table.open |= count == 0;
            table.items.extend(items);
        }
    }

    fn call(&mut self, i: Instruction, line: u32) {
        let (a, b) = (i.a(), i.b());
        let args: Vec<_> = (1..b).map(|n| self.register(a + n).clone()).collect();
        let mut result = Known::Nothing;
        if let Known::Global(path) = self.register(a).clone() {
            if let ([function], [argument, ..]) = (path.as_slice(), args.as_slice())
                && let (true, Some(Value::String(name))) = (function == "require", argument.data())
            {
                result = Known::Module(name);
            }
            self.facts.push(Fact::Called {
                path,
                args,
                open: b == 0,
                line,
            });
        }
        self.forget(i);
        self.set(a, result);
    }

    fn closure(&mut self, i: Instruction) {
        let Some(inner) = self.proto.protos.get(i.bx()) else {
            return;
        };
        let changed = assigned(inner);
        let upvalues = inner
            .upvalues
            .iter()
            .enumerate()
            .map(|(n, (in_stack, index))| {
                let known = match in_stack {
                    true => self.register(*index),
                    false => self.upvalues.get(*index).unwrap_or(&Known::Nothing),
                };
                if changed.contains(&n) {
                    Known::Nothing
                } else {
                    known.captured()
                }
            });
        let upvalues = upvalues.collect();
        Walk::new(inner, upvalues, self.facts).walk();
    }
}
