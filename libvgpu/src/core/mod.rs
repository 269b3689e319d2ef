//! What the exports stand on: the process's state, the channel to the worker, the tables that answer in the guest.

pub mod advice;
pub mod arena;
pub mod arrays;
pub mod capture;
#[expect(unsafe_code, reason = "closes a descriptor in a child of fork")]
pub mod channel;
pub mod contexts;
pub mod copiers;
pub mod event_words;
pub mod exec;
pub mod fat_binary;
pub mod functions;
pub mod graph_memory;
pub mod graphs;
#[expect(unsafe_code, reason = "calls functions of the program")]
pub mod host_functions;
#[expect(unsafe_code, reason = "reads an image whose length only its own words say")]
pub mod image_size;
pub mod images;
pub mod ipc;
pub mod known_images;
pub mod limits;
pub mod linkers;
#[expect(unsafe_code, reason = "calls functions of the program, asks for the thread's number")]
pub mod logs;
pub mod managed_block;
pub mod pools;
#[expect(unsafe_code, reason = "hears of fork from the C library")]
pub mod process;
pub mod ranges;
pub mod references;
pub mod slab;
pub mod slots;
pub mod spans;
#[expect(unsafe_code, reason = "writes to the C library's streams")]
pub mod stdio;
pub mod streams;
#[expect(unsafe_code, reason = "sets a thread's mask of signals")]
pub mod threads;
pub mod user_objects;
pub mod virtual_memory;
pub mod visible;
pub mod waited;
