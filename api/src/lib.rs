//! The vocabulary: catalogue, schemas, defaults, validation, selectors, patches, transcoding, printing.

pub mod catalogue;
pub mod field;
pub mod int_or_string;
pub mod json;
pub mod name;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod status;
pub mod time;

pub use name::generate_name;
