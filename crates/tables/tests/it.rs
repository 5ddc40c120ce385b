//! What is written, read back.

#[path = "../../analysis/tests/support/rows.rs"]
mod rows;

use mmuscope_analysis::events::{self, Attribution, EVENTS};
use mmuscope_analysis::table::{CHUNK_ROWS, Cell, Column, Rows};
use mmuscope_tables::{Format, TableWriter, WriteOptions};
use mmuscope_trace::Trace;
use polars_arrow::array::{Array, BooleanArray, PrimitiveArray, Utf8Array};
use polars_arrow::datatypes::ArrowDataType;
use polars_arrow::io::ipc::read::{FileReader, read_file_metadata};
use rows::{TABLES, TEXT, rows};
use std::io::Cursor;

fn write(format: Format) -> Vec<u8> {
    let mut w = TableWriter::new(&EVENTS, format, WriteOptions::default(), Vec::new()).expect("a writer");
    w.write(&rows().take()).expect("writes");
    w.finish().expect("finishes")
}

#[test]
fn every_event_has_its_fields_in_columns() {
    let text = String::from_utf8(write(Format::Csv)).expect("UTF-8");
    let mut r = csv::Reader::from_reader(text.as_bytes());
    let names = r.headers().expect("names").clone();
    let all: Vec<csv::StringRecord> = r.records().map(|r| r.expect("a record")).collect();
    let cell = |row: usize, name: &str| {
        all[row].get(names.iter().position(|n| n == name).expect("a column")).expect("a cell").to_string()
    };
    assert_eq!(all.len(), 6);
    assert_eq!(
        (cell(1, "error_code"), cell(1, "gpa"), cell(1, "gfn"), cell(1, "vcpu")),
        ("0x100000006".into(), "0x100000".into(), "0x100".into(), "1".into())
    );
    assert_eq!(
        (cell(3, "old_spte"), cell(3, "new_spte"), cell(3, "as_id"), cell(3, "level")),
        ("0x0".into(), "0x7ea1e67".into(), "0".into(), "1".into())
    );
    assert_eq!(
        (cell(4, "spte"), cell(4, "sptep"), cell(4, "u"), cell(4, "pfn")),
        ("0x7ea1e67".into(), "0x55fe800".into(), "true".into(), String::new())
    );
    assert_eq!((cell(2, "pfn"), cell(2, "ts")), ("0x7ea1".into(), "2000".into()));
    assert_eq!(
        (cell(5, "text"), cell(5, "comm"), cell(5, "tid")),
        ("a \"mark\", with commas".into(), "a,b \"c\"".into(), "7".into())
    );
}

/// A cell of an Arrow array, as ours would be.
fn cell(array: &dyn Array, row: usize) -> Cell<'_> {
    let any = array.as_any();
    if array.is_null(row) {
        Cell::Null
    } else if let Some(a) = any.downcast_ref::<PrimitiveArray<u64>>() {
        Cell::U64(a.value(row))
    } else if let Some(a) = any.downcast_ref::<PrimitiveArray<u32>>() {
        Cell::U64(a.value(row).into())
    } else if let Some(a) = any.downcast_ref::<PrimitiveArray<i32>>() {
        Cell::I32(a.value(row))
    } else if let Some(a) = any.downcast_ref::<BooleanArray>() {
        Cell::Bool(a.value(row))
    } else {
        Cell::Text(any.downcast_ref::<Utf8Array<i64>>().expect("a type that columns have").value(row))
    }
}

/// The type of a column as `docs/tables.md` calls it.
fn documented(column: &Column) -> ArrowDataType {
    match column.kind.type_name() {
        "u64" => ArrowDataType::UInt64,
        "u32" => ArrowDataType::UInt32,
        "i32" => ArrowDataType::Int32,
        "bool" => ArrowDataType::Boolean,
        _ => ArrowDataType::LargeUtf8,
    }
}

#[test]
fn every_table_has_the_documented_types() {
    for table in TABLES {
        let w =
            TableWriter::new(table, Format::Arrow, WriteOptions::default(), Vec::new()).expect("a writer");
        let file = w.finish().expect("finishes");
        let head = read_file_metadata(&mut Cursor::new(file)).expect("the end of an Arrow file");
        let fields: Vec<_> = head.schema.iter_values().map(|f| (f.name.as_str(), f.dtype.clone())).collect();
        let want: Vec<_> = table.columns.iter().map(|c| (c.name, documented(c))).collect();
        assert_eq!(fields, want, "{}", table.name);
    }
}

/// What is in Parquet files is compared by the command line's tests, which ask DuckDB.
#[test]
fn arrow_reads_back_the_same() {
    let made = rows().take();
    let mut file = Cursor::new(write(Format::Arrow));
    let head = read_file_metadata(&mut file).expect("the end of an Arrow file");
    let mut reader = FileReader::new(file, head, None, None);
    let back = reader.next().expect("one batch").expect("reads");
    assert!(reader.next().is_none());
    assert_eq!((back.len(), back.arrays().len()), (made.height(), EVENTS.columns.len()));
    for (n, (array, spec)) in back.arrays().iter().zip(EVENTS.columns).enumerate() {
        assert_eq!(array.dtype(), &documented(spec), "{}", spec.name);
        for row in 0..made.height() {
            assert_eq!(cell(array.as_ref(), row), made.cell(row, n), "{} in row {row}", spec.name);
        }
    }
}

#[test]
fn chunks_follow_each_other() {
    let mut out =
        TableWriter::new(&EVENTS, Format::Parquet, WriteOptions::default(), Vec::new()).expect("a writer");
    let trace = Trace::from_text(TEXT).expect("a trace");
    let (whose, e) = (Attribution::of(&trace), trace.events.get(3));
    let mut rows = Rows::new(&EVENTS);
    let total = 2 * CHUNK_ROWS + 17;
    for _ in 0..total {
        events::push(&mut rows, 3, &e, &trace.strings, &whose, 0);
        if rows.is_full() {
            assert_eq!(rows.len(), CHUNK_ROWS);
            out.write(&rows.take()).expect("writes");
        }
    }
    out.write(&rows.take()).expect("writes");
    let bytes = out.finish().expect("finishes");
    let back =
        polars_parquet::read::read_metadata(&mut Cursor::new(&bytes)).expect("the end of a Parquet file");
    assert_eq!((back.num_rows, back.row_groups.len()), (total, 3));
    assert!(bytes.len() < total, "equal rows cost little: {} bytes", bytes.len());
}
