//! The `format` file of a tracepoint, as tracefs shows it and as perf.data and trace.dat carry it.
//!
//! ```text
//! name: kvm_entry
//! ID: 1743
//! format:
//! <tab>field:unsigned short common_type;<tab>offset:0;<tab>size:2;<tab>signed:0;
//! <tab>…                                               common fields, an empty line, the event's own fields, an empty line
//! <tab>field:__data_loc char[] msg;<tab>offset:8;…       u32: offset in the record (low half) and length (high half)
//!
//! print fmt: "vcpu %u", REC->vcpu_id
//! ```
//! Very old kernels do not print `signed:`. Only offsets, sizes and signedness are used; of the print format, only a few literal pieces are
//! looked for (see [`Hints`]).

use nom::branch::alt;
use nom::bytes::complete::{tag, take_till, take_until, take_while1};
use nom::character::complete::{char, digit1, line_ending, multispace0, not_line_ending, space0};
use nom::combinator::{map, map_res, opt, recognize};
use nom::multi::many0;
use nom::sequence::{delimited, preceded, terminated};
use nom::{IResult, Parser};

use crate::fields::{RET_PF_5_10, RET_PF_5_18, RET_PF_6_12};
use crate::info::{RetPf, RoleWord, UserLetter};
use crate::role;

/// A tracepoint's record layout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// The system (`kvmmmu`), where known.
    pub system: String,
    /// The name of the tracepoint.
    pub name: String,
    /// The number that every record begins with; it differs from boot to boot.
    pub id: u32,
    /// All fields, the common ones first.
    pub fields: Vec<Field>,
    /// The text after `print fmt:`.
    pub print_fmt: String,
}

/// One field of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// The name.
    pub name: String,
    /// The C type as written.
    pub ctype: String,
    /// The offset from the start of the record, in bytes.
    pub offset: u32,
    /// The size in bytes.
    pub size: u32,
    /// Whether the number is signed.
    pub signed: bool,
    /// How the bytes are to be interpreted.
    pub shape: Shape,
}

/// How the bytes of a field are to be interpreted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// The field is a number.
    #[default]
    Scalar,
    /// The field is an array in place; without a size, it extends to the end of the record.
    Array,
    /// The field is a `__data_loc`: offset and length of an array elsewhere in the record.
    DataLoc,
    /// The field is a `__rel_loc`: the same as `__data_loc`, but relative to the end of this field.
    RelLoc,
}

impl Format {
    /// Reads a format file.
    pub fn parse(text: &str) -> Option<Self> {
        format(text).ok().map(|(_, f)| f)
    }

    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// What the print format shows about the meaning of fields.
    pub fn hints(&self) -> Hints {
        Hints::of(&self.print_fmt)
    }
}

/// What can be learned from a print format without evaluating C.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// The layout of the role word, from the field names or access letters of shadow-page events.
    pub role: Option<RoleWord>,
    /// The numbers of `RET_PF_*`, from `REC->ret == N, REC->ret == M` of `fast_page_fault`.
    pub ret_pf: Option<RetPf>,
    /// What the user letter of `kvm_mmu_set_spte` can show.
    pub user: Option<UserLetter>,
}

impl Hints {
    fn of(print_fmt: &str) -> Self {
        let ret_pf = match ret_numbers(print_fmt) {
            Some((spurious, fixed)) => {
                let known = [RET_PF_5_10, RET_PF_5_18, RET_PF_6_12]
                    .into_iter()
                    .find(|n| (n.spurious, n.fixed) == (spurious, fixed));
                // Numbers of a kernel that is not known yet: the order of the names has never changed.
                Some(known.unwrap_or(RetPf { spurious, fixed, invalid: fixed - 1, ..RET_PF_6_12 }))
            }
            // Kernels from 5.10 to 5.14 print the names, and their numbers are those of 5.10.
            None if print_fmt.contains("RET_PF_SPURIOUS") => Some(RET_PF_5_10),
            None => None,
        };
        let user = if print_fmt.contains("REC->u == -1") {
            Some(UserLetter::OrAbsent)
        } else if print_fmt.contains("REC->u ?") {
            Some(UserLetter::Plain)
        } else {
            None
        };
        Self { role: role::layout_of(print_fmt), ret_pf, user }
    }
}

/// Finds `REC->ret == 6, REC->ret == 5` and returns (6, 5).
fn ret_numbers(s: &str) -> Option<(i32, i32)> {
    fn one(i: &str) -> IResult<&str, i32> {
        preceded((tag("REC->ret"), space0, tag("=="), space0), map_res(digit1, str::parse)).parse(i)
    }
    fn both(i: &str) -> IResult<&str, (i32, i32)> {
        let (i, a) = preceded(take_until("REC->ret =="), one).parse(i)?;
        let (i, b) = preceded((char(','), space0), one).parse(i)?;
        Ok((i, (a, b)))
    }
    both(s).ok().map(|(_, n)| n)
}

fn number(i: &str) -> IResult<&str, u32> {
    map_res(digit1, str::parse).parse(i)
}

/// Parses a line `name: X`.
fn keyed<'a>(
    key: &'static str,
) -> impl Parser<&'a str, Output = &'a str, Error = nom::error::Error<&'a str>> {
    delimited((multispace0, tag(key), space0), not_line_ending, opt(line_ending))
}

/// Parses `offset:8;` after blanks.
fn attribute<'a>(
    key: &'static str,
) -> impl Parser<&'a str, Output = u32, Error = nom::error::Error<&'a str>> {
    delimited((space0, tag(key), space0), number, char(';'))
}

/// Parses a line `field:TYPE NAME[LEN];` with its attributes.
fn field(i: &str) -> IResult<&str, Field> {
    let (i, decl) =
        delimited((space0, tag("field:"), space0), take_till(|c| c == ';' || c == '\n'), char(';'))
            .parse(i)?;
    let (i, offset) = attribute("offset:").parse(i)?;
    let (i, size) = attribute("size:").parse(i)?;
    let (i, signed) = opt(delimited((space0, tag("signed:"), space0), number, char(';'))).parse(i)?;
    let (i, _) = (space0, opt(line_ending)).parse(i)?;
    let Ok((_, (ctype, name, shape))) = declaration(decl) else {
        return Err(nom::Err::Error(nom::error::Error::new(i, nom::error::ErrorKind::Verify)));
    };
    Ok((
        i,
        Field {
            name: name.to_owned(),
            ctype: ctype.to_owned(),
            offset,
            size,
            signed: signed.unwrap_or(0) != 0,
            shape,
        },
    ))
}

/// Splits `unsigned long ip`, `u64 * sptep`, `char comm[16]`, `__data_loc char[] msg`: the name is the last identifier.
fn declaration(decl: &str) -> IResult<&str, (&str, &str, Shape)> {
    let ident = |c: char| c.is_alphanumeric() || c == '_';
    let (rest, loc) = opt(alt((
        map(terminated(tag("__data_loc"), space0), |_| Shape::DataLoc),
        map(terminated(tag("__rel_loc"), space0), |_| Shape::RelLoc),
    )))
    .parse(decl)?;
    let plain = rest.split('[').next().unwrap_or(rest).trim_end();
    if let Some(loc) = loc {
        let name = rest.rsplit(|c: char| !ident(c)).next().unwrap_or("");
        return Ok(("", (decl[..decl.len() - name.len()].trim_end(), name, loc)));
    }
    let start = plain.char_indices().rfind(|(_, c)| !ident(*c)).map_or(0, |(n, c)| n + c.len_utf8());
    let (_, name) = recognize(take_while1(ident)).parse(&plain[start..])?;
    let shape = if rest.contains('[') { Shape::Array } else { Shape::Scalar };
    Ok(("", (plain[..start].trim_end(), name, shape)))
}

/// Parses the lines of fields, with empty lines between them.
fn fields(i: &str) -> IResult<&str, Vec<Field>> {
    many0(preceded(many0(line_ending), field)).parse(i)
}

fn format(i: &str) -> IResult<&str, Format> {
    let (i, name) = keyed("name:").parse(i)?;
    let (i, id) = map_res(keyed("ID:"), |s: &str| s.trim().parse()).parse(i)?;
    let (i, _) = keyed("format:").parse(i)?;
    let (i, fields) = fields(i)?;
    let (i, print_fmt) = opt(keyed("print fmt:")).parse(i)?;
    Ok((
        i,
        Format {
            system: String::new(),
            name: name.trim().to_owned(),
            id,
            fields,
            print_fmt: print_fmt.unwrap_or("").trim().to_owned(),
        },
    ))
}

/// Parses `events/header_page`, the fields in the head of a ring page.
pub(crate) fn header_page(text: &str) -> Option<Vec<Field>> {
    let (_, f) = fields(text).ok()?;
    (!f.is_empty()).then_some(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET_SPTE: &str = "name: kvm_mmu_set_spte\nID: 1760\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\tfield:u64 gfn;\toffset:8;\tsize:8;\tsigned:0;\n\
        \tfield:signed char u;\toffset:35;\tsize:1;\tsigned:1;\n\tfield:u64 * sptep;\toffset:40;\tsize:8;\tsigned:0;\n\
        \tfield:char comm[TASK_COMM_LEN];\toffset:48;\tsize:16;\tsigned:0;\n\tfield:__data_loc char[] msg;\toffset:64;\tsize:4;\n\
        \nprint fmt: \"gfn %llx\", REC->gfn, REC->u == -1 ? \"\" : \"u\"\n";

    #[test]
    fn a_format_file() {
        let f = Format::parse(SET_SPTE).expect("it parses");
        assert_eq!((f.name.as_str(), f.id, f.fields.len()), ("kvm_mmu_set_spte", 1760, 7));
        let u = f.field("u").expect("u");
        assert_eq!(
            (u.ctype.as_str(), u.offset, u.size, u.signed, u.shape),
            ("signed char", 35, 1, true, Shape::Scalar)
        );
        assert_eq!(f.field("sptep").map(|f| f.ctype.as_str()), Some("u64 *"));
        assert_eq!(f.field("comm").map(|f| (f.shape, f.size)), Some((Shape::Array, 16)));
        assert_eq!(f.field("msg").map(|f| (f.shape, f.signed)), Some((Shape::DataLoc, false)));
        assert_eq!(f.hints().user, Some(UserLetter::OrAbsent));
        assert!(f.print_fmt.starts_with("\"gfn"));
    }

    #[test]
    fn print_formats_show_the_dialect() {
        let h = |s| Hints::of(s);
        assert_eq!(h("…, REC->ret == 6, REC->ret == 5").ret_pf, Some(RET_PF_6_12));
        assert_eq!(h("…, REC->ret == 5, REC->ret == 4").ret_pf, Some(RET_PF_5_18));
        assert_eq!(h("…, REC->ret == RET_PF_SPURIOUS, REC->ret == RET_PF_FIXED").ret_pf, Some(RET_PF_5_10));
        assert_eq!(h("role.has_4_byte_gpte ? 4 : 8").role, Some(RoleWord::Has4ByteGpte));
        assert_eq!(h("{ \"----\", \"r---\" } role.has_4_byte_gpte ? 4 : 8").role, Some(RoleWord::AccessRead));
        assert_eq!(h("role.gpte_is_8_bytes ? 8 : 4").role, Some(RoleWord::GpteIs8Bytes));
        assert_eq!(h("role.cr4_pae ? \" pae\" : \"\"").role, Some(RoleWord::Cr4Pae));
    }

    #[test]
    fn a_page_head() {
        let f = header_page("\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\tfield: local_t commit;\toffset:8;\tsize:4;\tsigned:1;\n")
            .expect("it parses");
        assert_eq!((f[1].name.as_str(), f[1].size), ("commit", 4));
    }

    #[test]
    fn rubbish() {
        for s in ["", "name:", "name: x\nID: y\nformat:\n", "field:;"] {
            assert_eq!(Format::parse(s), None, "{s:?}");
        }
    }
}
