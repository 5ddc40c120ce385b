//! Parquet and Arrow IPC files, through polars' own Arrow and Parquet crates: the one place that knows them.
//!
//! Each chunk becomes a row group of a Parquet file or a record batch of an Arrow file. [`TableWriter`](crate::TableWriter) calls this; nothing here
//! knows what the columns mean.

use crate::Error;
use crate::write::View;
use mmuscope_analysis::table::{Cell, Kind, Table};
use polars_arrow::array::{Array, BooleanArray, PrimitiveArray, Utf8Array, new_null_array};
use polars_arrow::datatypes::{ArrowDataType, ArrowSchema, Field};
use polars_arrow::io::ipc::write::{FileWriter as IpcFile, WriteOptions as IpcOptions};
use polars_arrow::record_batch::RecordBatchT;
use polars_parquet::write::{
    CompressionOptions, FileWriter as ParquetFile, RowGroupIterator, StatisticsOptions, Version,
    WriteOptions, get_dtype_encoding,
};
use std::io::Write;
use std::sync::Arc;

/// Writes row groups of a Parquet file, compressed with zstd.
pub(crate) struct ParquetWriter<W: Write>(ParquetFile<W>);

/// Writes record batches of an Arrow IPC file.
pub(crate) struct ArrowWriter<W: Write> {
    file: IpcFile<W>,
    schema: Arc<ArrowSchema>,
}

impl<W: Write> ParquetWriter<W> {
    pub(crate) fn new(table: &Table, out: W) -> Result<Self, Error> {
        let options = WriteOptions {
            statistics: StatisticsOptions::default(),
            compression: CompressionOptions::Zstd(None),
            version: Version::V1,
            data_page_size: None,
        };
        Ok(Self(ParquetFile::try_new(out, schema(table), options)?))
    }

    pub(crate) fn write(&mut self, view: &View<'_>) -> Result<(), Error> {
        let schema = self.0.schema().clone();
        let encodings = schema.iter_values().map(|f| get_dtype_encoding(&f.dtype)).collect();
        let batch = RecordBatchT::try_new(view.rows, Arc::new(schema.clone()), arrays(view));
        let groups = RowGroupIterator::try_new(std::iter::once(batch), &schema, self.0.options(), encodings)?;
        for group in groups {
            self.0.write(view.rows as u64, group?)?;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<W, Error> {
        self.0.end(None)?;
        Ok(self.0.into_inner())
    }
}

impl<W: Write> ArrowWriter<W> {
    pub(crate) fn new(table: &Table, out: W) -> Result<Self, Error> {
        let schema = Arc::new(schema(table));
        let options = IpcOptions { compression: None };
        let file = IpcFile::try_new(out, Arc::clone(&schema), None, options)?;
        Ok(Self { file, schema })
    }

    pub(crate) fn write(&mut self, view: &View<'_>) -> Result<(), Error> {
        let batch = RecordBatchT::try_new(view.rows, Arc::clone(&self.schema), arrays(view))?;
        Ok(self.file.write(&batch, None)?)
    }

    pub(crate) fn finish(mut self) -> Result<W, Error> {
        self.file.finish()?;
        Ok(self.file.into_inner())
    }
}

fn schema(table: &Table) -> ArrowSchema {
    table.columns.iter().map(|c| Field::new(c.name.into(), data_type(c.kind), true)).collect()
}

/// The Arrow type of a column. Strings have 64-bit offsets, which every Arrow reader knows.
fn data_type(kind: Kind) -> ArrowDataType {
    match kind {
        Kind::Time | Kind::Duration | Kind::Hex | Kind::Count | Kind::Bytes => ArrowDataType::UInt64,
        Kind::Number => ArrowDataType::UInt32,
        Kind::Signed => ArrowDataType::Int32,
        Kind::Flag => ArrowDataType::Boolean,
        Kind::Text => ArrowDataType::LargeUtf8,
    }
}

/// Each column of a view as an Arrow array.
fn arrays(view: &View<'_>) -> Vec<Box<dyn Array>> {
    let rows = || 0..view.rows;
    view.columns
        .iter()
        .map(|column| {
            let number = |row| match column.get(row) {
                Cell::U64(v) => Some(v),
                _ => None,
            };
            match data_type(column.spec.kind) {
                kind if column.at.is_none() => new_null_array(kind, view.rows),
                ArrowDataType::UInt64 => rows().map(number).collect::<PrimitiveArray<u64>>().boxed(),
                ArrowDataType::UInt32 => {
                    let small = |row| number(row).and_then(|v| u32::try_from(v).ok());
                    rows().map(small).collect::<PrimitiveArray<u32>>().boxed()
                }
                ArrowDataType::Int32 => {
                    let signed = |row| match column.get(row) {
                        Cell::I32(v) => Some(v),
                        _ => None,
                    };
                    rows().map(signed).collect::<PrimitiveArray<i32>>().boxed()
                }
                ArrowDataType::Boolean => {
                    let flag = |row| match column.get(row) {
                        Cell::Bool(v) => Some(v),
                        _ => None,
                    };
                    rows().map(flag).collect::<BooleanArray>().boxed()
                }
                _ => {
                    let words = |row| match column.get(row) {
                        Cell::Text(v) => Some(v),
                        _ => None,
                    };
                    rows().map(words).collect::<Utf8Array<i64>>().boxed()
                }
            }
        })
        .collect()
}
