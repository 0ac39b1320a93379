//! The vocabulary: catalogue, schemas, defaults, validation, selectors, patches, transcoding, printing.

pub mod catalogue;
pub mod cel;
pub mod conversion;
pub mod cron;
pub mod defaults;
pub mod definition;
pub mod field;
pub mod int_or_string;
pub mod json;
pub mod json_path;
pub mod managed_fields;
pub mod name;
pub mod openapi;
pub mod patch;
pub mod policy;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strategy;
pub mod table;
pub mod time;
pub mod validation;

pub use name::generate_name;
