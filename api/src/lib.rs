//! The vocabulary: catalogue, schemas, defaults, validation, selectors, patches, transcoding, printing.
