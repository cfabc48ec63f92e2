//! Migrations of schema `berth`.
