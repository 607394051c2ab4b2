//! A reader of pickles that knows only what files of tensors need, and executes nothing.
//!
//! A pickle is a program for a machine with a stack and a memo (Python's `pickletools` documents its opcodes). Here the machine makes
//! plain values: no opcode runs code, and a name that is not in [`globals`](super::globals) ends the reading. Objects lie in one list and
//! refer to each other by number, so that shared and circular references cost nothing and nothing recurses.

use std::collections::HashMap;

use crate::dtype::shorten;
use crate::error::{Error, Result};

use super::globals::{ElementType, Global, look_up, refuse};
use super::rebuild;

/// A pickle of more bytes is not one of tensors.
pub(super) const MAX_PICKLE: u64 = 64 << 20;
/// A tensor takes about 45 operations.
const MAX_OPERATIONS: usize = 8_000_000;
const MAX_STACK: usize = 1_000_000;
const MAX_MARKS: usize = 1000;
/// Objects, and numbers in the memo: a tensor takes about 6 and 22.
const MAX_KEPT: usize = 3_000_000;

/// What an opcode pushes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits: its bytes in two's complement, little endian.
    Long(&'a [u8]),
    /// A float; no file of tensors needs to know which.
    Float,
    Text(&'a str),
    /// Bytes that are no text.
    Bytes,
    Global(Global),
    /// Number of an object.
    Object(usize),
}

/// What a value may refer to.
#[derive(Debug)]
pub(super) enum Object<'a> {
    Tuple(Vec<Value<'a>>),
    List(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    Storage(Box<Storage<'a>>),
    Tensor(Box<Tensor<'a>>),
}

/// A storage as its persistent id describes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub(super) elements: ElementType,
    pub(super) key: &'a str,
    /// Number of elements of the whole storage.
    pub(super) count: u64,
    /// First element and number of elements of the part that is meant, in files of torch before 0.4.
    pub(super) view: Option<(u64, u64)>,
}

/// A view of a storage.
#[derive(Debug, Clone)]
pub(super) struct Tensor<'a> {
    pub(super) storage: Storage<'a>,
    /// The dtype, where it is not the storage's.
    pub(super) elements: ElementType,
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    pub(super) strides: Vec<u64>,
    /// Whether it is marked as conjugated or negated, so that its elements are not those in the storage.
    pub(super) marked: bool,
}

/// Why reading stopped before the end.
#[derive(Debug)]
pub(super) enum Stop {
    /// There are no more bytes.
    Ended,
    /// Something is wrong.
    Wrong(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Wrong(error)
    }
}

impl Stop {
    /// The error, where the bytes were all that there are.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Ended => Error::new("the pickle ends before its last opcode").help("the file is cut off: download it again"),
            Self::Wrong(error) => error,
        }
    }
}

/// A pickle that was read.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    /// What it holds.
    pub(super) value: Value<'a>,
    /// All objects, by number.
    pub(super) objects: Vec<Object<'a>>,
    /// Bytes read, up to and with the opcode STOP.
    pub(super) length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle at the beginning of `bytes`.
    pub(super) fn read(bytes: &'a [u8]) -> std::result::Result<Self, Stop> {
        let mut machine =
            Machine { bytes, position: 0, operations: 0, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), objects: Vec::new() };
        while machine.operations < MAX_OPERATIONS {
            machine.operations += 1;
            let at = machine.position;
            let place = |stop: Stop, machine: &Machine<'_>| match stop {
                Stop::Wrong(error) => Stop::Wrong(machine.place(error, at)),
                ended => ended,
            };
            match machine.step() {
                Ok(None) => {}
                Ok(Some(value)) => return Ok(Self { value, objects: machine.objects, length: machine.position }),
                Err(stop) => return Err(place(stop, &machine)),
            }
        }
        Err(Error::new(format!("the pickle has more than {MAX_OPERATIONS} operations")).into())
    }

    /// The object to which a value refers.
    pub(super) fn object(&self, value: Value<'a>) -> Option<&Object<'a>> {
        object(&self.objects, value)
    }
}

pub(super) fn object<'o, 'a>(objects: &'o [Object<'a>], value: Value<'a>) -> Option<&'o Object<'a>> {
    match value {
        Value::Object(number) => objects.get(number),
        _ => None,
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Opcodes run, and entries copied.
    operations: usize,
    stack: Vec<Value<'a>>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    objects: Vec<Object<'a>>,
}

type Step<T> = std::result::Result<T, Stop>;

impl<'a> Machine<'a> {
    /// Runs one opcode; the pickle's value at its end.
    fn step(&mut self) -> Step<Option<Value<'a>>> {
        let opcode = self.take(1)?[0];
        match opcode {
            b'.' => return Ok(Some(self.pop()?)),
            0x80 => self.protocol()?,
            0x95 => self.frame()?,
            b'(' => self.mark()?,
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_marked()?),
            b'2' => {
                let top = self.top()?;
                self.push(top)?;
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'K' => self.integer(1)?,
            b'M' => self.integer(2)?,
            b'J' => {
                let bytes = self.array()?;
                self.push(Value::Int(i64::from(i32::from_le_bytes(bytes))))?;
            }
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            b'G' => {
                self.take(8)?;
                self.push(Value::Float)?;
            }
            b'X' => self.text(4)?,
            0x8c => self.text(1)?,
            0x8d => self.text(8)?,
            b'U' => self.string(1)?,
            b'T' => self.string(4)?,
            b'C' => self.opaque(1)?,
            b'B' => self.opaque(4)?,
            0x8e | 0x96 => self.opaque(8)?,
            b']' => self.push_object(Object::List(Vec::new()))?,
            b'}' => self.push_object(Object::Dict(Vec::new()))?,
            b')' => self.push_object(Object::Tuple(Vec::new()))?,
            0x85..=0x87 => {
                let values = self.pop_many(usize::from(opcode - 0x84))?;
                self.push_object(Object::Tuple(values))?;
            }
            b't' => {
                let values = self.pop_marked()?;
                self.push_object(Object::Tuple(values))?;
            }
            b'l' => {
                let values = self.pop_marked()?;
                self.push_object(Object::List(values))?;
            }
            b'd' => {
                let values = self.pop_marked()?;
                self.push_object(Object::Dict(pairs(values)?))?;
            }
            b'a' => {
                let values = self.pop_many(1)?;
                self.append(values)?;
            }
            b'e' => {
                let values = self.pop_marked()?;
                self.append(values)?;
            }
            b's' => {
                let values = self.pop_many(2)?;
                self.set_items(values)?;
            }
            b'u' => {
                let values = self.pop_marked()?;
                self.set_items(values)?;
            }
            b'q' | b'r' | 0x94 => self.remember(opcode)?,
            b'h' | b'j' => self.recall(opcode)?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(look_up(module, name)?))?;
            }
            0x93 => self.stack_global()?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            b'Q' => self.persistent()?,
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                return Err(refuse(module, name).into());
            }
            other => return Err(refused_opcode(other).into()),
        }
        Ok(None)
    }

    /// An error with the place in the pickle, and the entry that was being read where the stack tells.
    fn place(&self, error: Error, at: usize) -> Error {
        let entry = match self.stack.last() {
            Some(Value::Text(name)) => format!(", entry `{}`", shorten(name)),
            _ => String::new(),
        };
        let message = format!("pickle, byte {at}{entry}: {}", error.message());
        error.with_message(message)
    }

    fn protocol(&mut self) -> Step<()> {
        match self.take(1)?[0] {
            0..=5 => Ok(()),
            other => Err(Error::new(format!("expected a pickle of protocol 2 to 5, found {other}")).into()),
        }
    }

    /// FRAME: how many bytes follow. It helps those who read from a pipe; here they only have to be there.
    fn frame(&mut self) -> Step<()> {
        let length = u64::from_le_bytes(self.array()?);
        let rest = (self.bytes.len() - self.position) as u64;
        if length > rest { Err(Stop::Ended) } else { Ok(()) }
    }

    /// The next bytes; nothing is taken where there are too few.
    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let taken = self.bytes[self.position..].get(..count).ok_or(Stop::Ended)?;
        self.position += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// Bytes behind their length, a number of `width` bytes.
    fn counted(&mut self, width: usize) -> Step<&'a [u8]> {
        let mut length = [0; 8];
        length[..width].copy_from_slice(self.take(width)?);
        let length = u64::from_le_bytes(length);
        if length > MAX_PICKLE {
            return Err(Error::new(format!("a value of {length} bytes in a pickle of at most {MAX_PICKLE}")).into());
        }
        self.take(length as usize)
    }

    /// A line of text without its end.
    fn line(&mut self) -> Step<&'a str> {
        // No name of a module is longer.
        const LONGEST: usize = 1000;
        let rest = &self.bytes[self.position..];
        let Some(end) = rest.iter().take(LONGEST).position(|&byte| byte == b'\n') else {
            return Err(if rest.len() < LONGEST { Stop::Ended } else { Error::new("a name of over 1000 bytes").into() });
        };
        let line = text(self.take(end)?)?;
        self.take(1)?;
        Ok(line)
    }

    fn push(&mut self, value: Value<'a>) -> Step<()> {
        if self.stack.len() == MAX_STACK {
            return Err(Error::new(format!("the pickle keeps more than {MAX_STACK} values at once")).into());
        }
        self.stack.push(value);
        Ok(())
    }

    fn push_object(&mut self, object: Object<'a>) -> Step<()> {
        self.check_kept(self.objects.len())?;
        self.objects.push(object);
        self.push(Value::Object(self.objects.len() - 1))
    }

    fn check_kept(&self, kept: usize) -> Step<()> {
        if kept < MAX_KEPT { Ok(()) } else { Err(Error::new(format!("the pickle makes more than {MAX_KEPT} objects")).into()) }
    }

    /// The first stack position that belongs to no mark's owner.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Step<Value<'a>> {
        match self.stack.last() {
            Some(&value) if self.stack.len() > self.floor() => Ok(value),
            _ => Err(empty_stack()),
        }
    }

    fn pop(&mut self) -> Step<Value<'a>> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn pop_many(&mut self, count: usize) -> Step<Vec<Value<'a>>> {
        match self.stack.len().checked_sub(count) {
            Some(start) if start >= self.floor() => Ok(self.stack.split_off(start)),
            _ => Err(empty_stack()),
        }
    }

    fn pop_marked(&mut self) -> Step<Vec<Value<'a>>> {
        let start = self.marks.pop().ok_or_else(|| Stop::Wrong(Error::new("an opcode needs a mark, there is none")))?;
        Ok(self.stack.split_off(start))
    }

    fn mark(&mut self) -> Step<()> {
        if self.marks.len() == MAX_MARKS {
            return Err(Error::new(format!("the pickle is nested more than {MAX_MARKS} deep")).into());
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn integer(&mut self, width: usize) -> Step<()> {
        let number = self.take(width)?.iter().rev().fold(0, |number, &byte| number << 8 | i64::from(byte));
        self.push(Value::Int(number))
    }

    fn long(&mut self, width: usize) -> Step<()> {
        let bytes = self.counted(width)?;
        if bytes.len() > 8 {
            return self.push(Value::Long(bytes));
        }
        let sign = if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
        let mut number = [sign; 8];
        number[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(number)))
    }

    fn text(&mut self, width: usize) -> Step<()> {
        let text = text(self.counted(width)?)?;
        self.push(Value::Text(text))
    }

    /// A string of Python 2: text where it is UTF-8, which torch expects.
    fn string(&mut self, width: usize) -> Step<()> {
        let value = std::str::from_utf8(self.counted(width)?).map_or(Value::Bytes, Value::Text);
        self.push(value)
    }

    fn opaque(&mut self, width: usize) -> Step<()> {
        self.counted(width)?;
        self.push(Value::Bytes)
    }

    /// The object on top of the stack.
    fn top_object(&mut self) -> Step<Option<&mut Object<'a>>> {
        match self.top()? {
            Value::Object(number) => Ok(self.objects.get_mut(number)),
            _ => Ok(None),
        }
    }

    fn append(&mut self, values: Vec<Value<'a>>) -> Step<()> {
        match self.top_object()? {
            Some(Object::List(list)) => list.extend(values),
            _ => return Err(Error::new("an opcode appends to something that is no list").into()),
        }
        Ok(())
    }

    fn set_items(&mut self, values: Vec<Value<'a>>) -> Step<()> {
        match self.top_object()? {
            Some(Object::Dict(entries)) => entries.extend(pairs(values)?),
            _ => return Err(Error::new("an opcode sets an entry of something that is no dictionary").into()),
        }
        Ok(())
    }

    fn remember(&mut self, opcode: u8) -> Step<()> {
        let number = match opcode {
            b'q' => u32::from(self.take(1)?[0]),
            b'r' => u32::from_le_bytes(self.array()?),
            // MEMOIZE: the next free number.
            _ => self.memo.len() as u32,
        };
        let top = self.top()?;
        self.check_kept(self.memo.len())?;
        self.memo.insert(number, top);
        Ok(())
    }

    fn recall(&mut self, opcode: u8) -> Step<()> {
        let number = if opcode == b'h' { u32::from(self.take(1)?[0]) } else { u32::from_le_bytes(self.array()?) };
        match self.memo.get(&number) {
            Some(&value) => self.push(value),
            None => Err(Error::new(format!("the pickle recalls number {number}, which it did not keep")).into()),
        }
    }

    fn stack_global(&mut self) -> Step<()> {
        match self.pop_many(2)?[..] {
            [Value::Text(module), Value::Text(name)] => self.push(Value::Global(look_up(module, name)?)),
            _ => Err(Error::new("the name of a Python object is no text").into()),
        }
    }

    /// REDUCE: what a known name would make of its arguments.
    fn reduce(&mut self) -> Step<()> {
        let called = self.pop_many(2)?;
        let (Value::Global(global), Some(Object::Tuple(arguments))) = (called[0], object(&self.objects, called[1])) else {
            return Err(Error::new("the pickle calls something that is no known name with a tuple of arguments").into());
        };
        match rebuild::make(&self.objects, global, arguments)? {
            rebuild::Made::Same(value) => self.push(value),
            rebuild::Made::New(object) => {
                // One list may be copied into many dictionaries: that counts, so that it ends.
                if let Object::Dict(entries) = &object {
                    self.operations += entries.len();
                }
                self.push_object(object)
            }
        }
    }

    /// BUILD: attributes of an object. Those of a state dict (`_metadata`: versions of modules) do not concern its tensors.
    fn build(&mut self) -> Step<()> {
        self.pop()?;
        match self.top_object()? {
            Some(Object::Dict(_)) => Ok(()),
            _ => Err(Error::new("the pickle sets the state of something that is no dictionary").into()),
        }
    }

    /// BINPERSID: a storage, whose bytes are outside the pickle.
    fn persistent(&mut self) -> Step<()> {
        let id = self.pop()?;
        let storage = rebuild::storage(&self.objects, id)?;
        self.push_object(Object::Storage(Box::new(storage)))
    }
}

fn pairs(values: Vec<Value<'_>>) -> Result<Vec<(Value<'_>, Value<'_>)>> {
    match values.as_chunks() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err(Error::new("a dictionary has a key without a value")),
    }
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| Error::new("a text that is not UTF-8"))
}

fn empty_stack() -> Stop {
    Stop::Wrong(Error::new("an opcode needs more values than there are"))
}

/// The error for an opcode that no file of tensors has.
fn refused_opcode(opcode: u8) -> Error {
    let name = match opcode {
        b'o' => "OBJ, which makes an object",
        0x81 => "NEWOBJ, which makes an object",
        0x92 => "NEWOBJ_EX, which makes an object",
        0x82..=0x84 => "EXT, a registered object",
        0x97 | 0x98 => "a buffer outside of the pickle",
        0x8f..=0x91 => "a set",
        b'I' | b'L' | b'F' | b'S' | b'V' | b'P' | b'g' | b'p' => "of protocol 0; torch.save writes protocol 2",
        _ => "unknown",
    };
    Error::new(format!("opcode {opcode:#04x} ({name}) is not read: no file of tensors needs it"))
        .help("the file is damaged, or does more than hold tensors: save the weights alone, as safetensors or with torch.save")
}
