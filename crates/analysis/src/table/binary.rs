//! Parquet and Arrow IPC files, through polars' own Arrow and Parquet crates: the one place that knows them.
//!
//! Each chunk becomes a row group of a Parquet file or a record batch of an Arrow file. [`TableWriter`](super::TableWriter) calls this; nothing here
//! knows what the columns mean.

use super::Table;
use super::chunk::Cells;
use super::write::View;
use crate::Error;
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
pub(super) struct ParquetWriter<W: Write>(ParquetFile<W>);

/// Writes record batches of an Arrow IPC file.
pub(super) struct ArrowWriter<W: Write> {
    file: IpcFile<W>,
    schema: Arc<ArrowSchema>,
}

impl<W: Write> ParquetWriter<W> {
    pub(super) fn new(table: &Table, out: W) -> Result<Self, Error> {
        let options = WriteOptions {
            statistics: StatisticsOptions::default(),
            compression: CompressionOptions::Zstd(None),
            version: Version::V1,
            data_page_size: None,
        };
        Ok(Self(ParquetFile::try_new(out, schema(table), options)?))
    }

    pub(super) fn write(&mut self, view: &View<'_>) -> Result<(), Error> {
        let schema = self.0.schema().clone();
        let encodings = schema.iter_values().map(|f| get_dtype_encoding(&f.dtype)).collect();
        let batch = RecordBatchT::try_new(view.rows, Arc::new(schema.clone()), arrays(view));
        let groups = RowGroupIterator::try_new(std::iter::once(batch), &schema, self.0.options(), encodings)?;
        for group in groups {
            self.0.write(view.rows as u64, group?)?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<W, Error> {
        self.0.end(None)?;
        Ok(self.0.into_inner())
    }
}

impl<W: Write> ArrowWriter<W> {
    pub(super) fn new(table: &Table, out: W) -> Result<Self, Error> {
        let schema = Arc::new(schema(table));
        let options = IpcOptions { compression: None };
        let file = IpcFile::try_new(out, Arc::clone(&schema), None, options)?;
        Ok(Self { file, schema })
    }

    pub(super) fn write(&mut self, view: &View<'_>) -> Result<(), Error> {
        let batch = RecordBatchT::try_new(view.rows, Arc::clone(&self.schema), arrays(view))?;
        Ok(self.file.write(&batch, None)?)
    }

    pub(super) fn finish(mut self) -> Result<W, Error> {
        self.file.finish()?;
        Ok(self.file.into_inner())
    }
}

fn schema(table: &Table) -> ArrowSchema {
    table.columns.iter().map(|c| Field::new(c.name.into(), data_type(&Cells::new(c.kind)), true)).collect()
}

/// The Arrow type of a column. Strings have 64-bit offsets, which every Arrow reader knows.
fn data_type(cells: &Cells) -> ArrowDataType {
    match cells {
        Cells::U64(_) => ArrowDataType::UInt64,
        Cells::U32(_) => ArrowDataType::UInt32,
        Cells::I32(_) => ArrowDataType::Int32,
        Cells::Bool(_) => ArrowDataType::Boolean,
        Cells::Text { .. } => ArrowDataType::LargeUtf8,
    }
}

fn arrays(view: &View<'_>) -> Vec<Box<dyn Array>> {
    view.columns
        .iter()
        .map(|column| {
            let Some(cells) = column.cells else {
                return new_null_array(data_type(&Cells::new(column.spec.kind)), view.rows);
            };
            // Rows beyond the last cell that was set are null.
            let mut cells = cells.clone();
            cells.resize(view.rows);
            match cells {
                Cells::U64(v) => PrimitiveArray::from(v).boxed(),
                Cells::U32(v) => PrimitiveArray::from(v).boxed(),
                Cells::I32(v) => PrimitiveArray::from(v).boxed(),
                Cells::Bool(v) => BooleanArray::from(v).boxed(),
                Cells::Text { ends, all } => {
                    let texts: Vec<Option<&str>> = ends.iter().map(|&(a, b)| all.get(a..b)).collect();
                    Utf8Array::<i64>::from(texts).boxed()
                }
            }
        })
        .collect()
}
