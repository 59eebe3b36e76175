//! SQL values as a guest sees them, whatever the database.

/// One value, as a parameter or in a row; the cases of `value` in `wit/transaction.wit`.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each case is documented in wit/transaction.wit")]
pub enum Value {
    Null,
    Boolean(bool),
    Int32(i32),
    Int64(i64),
    Float64(f64),
    Decimal(String),
    Text(String),
    Bytes(Vec<u8>),
    Json(String),
    Uuid(String),
    Date(i32),
    Time(i64),
    Timestamp(i64),
    Timestamptz(i64),
    Interval { months: i32, days: i32, micros: i64 },
    Int64Array(Vec<Option<i64>>),
    Float64Array(Vec<Option<f64>>),
    TextArray(Vec<Option<String>>),
    Other { type_name: String, text: String },
}

impl Value {
    /// About how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        let beside = match self {
            Self::Decimal(text) | Self::Text(text) | Self::Json(text) | Self::Uuid(text) => text.len(),
            Self::Other { type_name, text } => type_name.len() + text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Int64Array(items) => size_of_val(&items[..]),
            Self::Float64Array(items) => size_of_val(&items[..]),
            Self::TextArray(items) => size_of_val(&items[..]) + items.iter().flatten().map(String::len).sum::<usize>(),
            _ => 0,
        };
        size_of::<Self>() + beside
    }
}

/// The name and type of one result column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// As the statement names it.
    pub name: String,
    /// The database's name of the type; empty if it has none.
    pub type_name: String,
}

/// The rows that a statement returned.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    /// In order.
    pub columns: Vec<Column>,
    /// Each as long as `columns`.
    pub rows: Vec<Vec<Value>>,
    /// How many rows the statement inserted, updated or deleted.
    pub changed: u64,
}
