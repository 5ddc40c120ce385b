//! Parquet and Arrow IPC files, through polars' own Arrow and Parquet crates: the one place that knows them.
//!
//! Each chunk becomes a row group of a Parquet file or a record batch of an Arrow file. [`TableWriter`](crate::TableWriter) calls this; nothing here
//! knows what the columns mean.

use crate::Error;
use crate::write::{ColumnView, View};
use mmuscope_analysis::table::{Cell, Kind, Table};
use polars_arrow::array::{Array, BooleanArray, PrimitiveArray, Utf8Array, new_null_array};
use polars_arrow::datatypes::{ArrowDataType, ArrowSchema, Field};
use polars_arrow::io::ipc::write::{FileWriter as IpcFile, WriteOptions as IpcOptions};
use polars_arrow::record_batch::RecordBatchT;
use polars_error::PolarsError;
use polars_parquet::parquet::CowBuffer;
use polars_parquet::parquet::compression::Compression;
use polars_parquet::parquet::page::CompressedDictPage;
use polars_parquet::write::{
    CompressedDataPage, CompressedPage, CompressionOptions, DynIter, DynStreamingIterator,
    FileWriter as ParquetFile, Page, ParquetType, StatisticsOptions, Version, WriteOptions, array_to_columns,
    fallible_streaming_iterator, get_dtype_encoding,
};
use rayon::prelude::*;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Writes row groups of a Parquet file, compressed with zstd.
pub(crate) struct ParquetWriter<W: Write> {
    file: ParquetFile<Sink<W>>,
    failed: Failed,
}

/// Why the output could not be written to.
type Failed = Arc<Mutex<Option<io::Error>>>;

/// An output that keeps its error: polars makes a text of it, in which nobody can see that a pipe's reader is gone.
struct Sink<W> {
    out: W,
    failed: Failed,
}

impl<W> Sink<W> {
    fn keep<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|e| {
            let kind = e.kind();
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
            kind.into()
        })
    }
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        self.keep(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.keep(flushed)
    }
}

/// The error of the output where there is one, and otherwise what polars says.
fn why(failed: &Failed, polars: PolarsError) -> Error {
    let kept = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
    kept.map_or_else(|| polars.into(), Error::Write)
}

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
        let failed = Failed::default();
        let out = Sink { out, failed: Arc::clone(&failed) };
        Ok(Self { file: ParquetFile::try_new(out, schema(table), options)?, failed })
    }

    pub(crate) fn write(&mut self, view: &View<'_>) -> Result<(), Error> {
        // The columns are encoded and compressed beside each other, which is nearly all of the work.
        let options = self.file.options();
        let columns: Vec<Vec<Vec<CompressedPage>>> = view
            .columns
            .par_iter()
            .zip(self.file.parquet_schema().fields())
            .map(|(column, field)| pages(array(column, view.rows), field, options))
            .collect::<Result<_, Error>>()?;
        let each = columns.iter().flatten().map(|pages| {
            let pages = fallible_streaming_iterator::convert(pages.iter().map(Ok::<_, PolarsError>));
            Ok(DynStreamingIterator::new(pages))
        });
        self.file.write(view.rows as u64, DynIter::new(each)).map_err(|e| why(&self.failed, e))
    }

    pub(crate) fn finish(mut self) -> Result<W, Error> {
        self.file.end(None).map_err(|e| why(&self.failed, e))?;
        Ok(self.file.into_inner().out)
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
        let arrays = view.columns.par_iter().map(|c| array(c, view.rows)).collect();
        let batch = RecordBatchT::try_new(view.rows, Arc::clone(&self.schema), arrays)?;
        Ok(self.file.write(&batch, None)?)
    }

    pub(crate) fn finish(mut self) -> Result<W, Error> {
        self.file.finish()?;
        Ok(self.file.into_inner())
    }
}

/// The compressed pages of each column of the file that an array becomes; an array of plain values becomes one column.
fn pages(
    array: Box<dyn Array>,
    field: &ParquetType,
    options: WriteOptions,
) -> Result<Vec<Vec<CompressedPage>>, Error> {
    let encodings = get_dtype_encoding(array.dtype());
    let columns = array_to_columns(array, field.clone(), options, &encodings)?;
    columns.into_iter().map(|pages| pages.map(|page| compressed(page?)).collect()).collect()
}

/// Compresses a page with the workspace's own zstd: the feature of polars that does it brings a second one, with decoders of formats from
/// before 2016. A data page of version 1 is compressed as a whole, its levels with its values.
fn compressed(page: Page) -> Result<CompressedPage, Error> {
    let zstd = |bytes: &[u8]| {
        let packed = zstd::bulk::compress(bytes, zstd::DEFAULT_COMPRESSION_LEVEL).map_err(Error::Write)?;
        Ok::<_, Error>(CowBuffer::Owned(packed))
    };
    Ok(match page {
        Page::Data(page) => CompressedPage::Data(CompressedDataPage::new(
            page.header().clone(),
            zstd(page.buffer())?,
            Compression::Zstd,
            page.buffer().len(),
            page.descriptor.clone(),
            page.num_rows().unwrap_or(page.num_values()),
        )),
        Page::Dict(page) => CompressedPage::Dict(CompressedDictPage::new(
            zstd(&page.buffer)?,
            Compression::Zstd,
            page.buffer.len(),
            page.num_values,
            page.is_sorted,
        )),
    })
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

/// A column of a view as an Arrow array.
fn array(column: &ColumnView<'_>, rows: usize) -> Box<dyn Array> {
    let each = || 0..rows;
    let number = |row| match column.get(row) {
        Cell::U64(v) => Some(v),
        _ => None,
    };
    match data_type(column.spec.kind) {
        kind if column.at.is_none() => new_null_array(kind, rows),
        ArrowDataType::UInt64 => each().map(number).collect::<PrimitiveArray<u64>>().boxed(),
        ArrowDataType::UInt32 => {
            let small = |row| number(row).and_then(|v| u32::try_from(v).ok());
            each().map(small).collect::<PrimitiveArray<u32>>().boxed()
        }
        ArrowDataType::Int32 => {
            let signed = |row| match column.get(row) {
                Cell::I32(v) => Some(v),
                _ => None,
            };
            each().map(signed).collect::<PrimitiveArray<i32>>().boxed()
        }
        ArrowDataType::Boolean => {
            let flag = |row| match column.get(row) {
                Cell::Bool(v) => Some(v),
                _ => None,
            };
            each().map(flag).collect::<BooleanArray>().boxed()
        }
        _ => {
            let words = |row| match column.get(row) {
                Cell::Text(v) => Some(v),
                _ => None,
            };
            each().map(words).collect::<Utf8Array<i64>>().boxed()
        }
    }
}
