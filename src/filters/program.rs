//! The filters of one route, compiled into one program.
