//! json_in
