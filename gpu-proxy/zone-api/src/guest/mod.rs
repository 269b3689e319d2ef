//! The guest's door: what guest-init and the supervisor say to each other on the GPU stream, after `idm`'s hello.
//!
//! guest-init offers a channel for each process that connects ([`ToProxy::Connect`]) and holds its pages until the proxy says
//! [`ToGuest::Unmapped`]. Each channel goes through
//!
//! ```text
//!   Connect ──► Accepted ──► Close or Died ──► Unmapped        guest-init may free the pages and use the number again
//!      └──────► Refused                                        nothing was mapped, or it is unmapped already
//! ```
//!
//! `Died` comes when the worker ended by itself; `Unmapped` follows it too. A `Close` that comes before the answer is answered by
//! `Refused`, or by `Accepted` and `Unmapped`. Between `Accepted` and `Unmapped` the proxy may want chunks of the channel's arena, each of
//! which is granted until then ([`ToGuest::Want`], [`ToProxy::Chunk`], [`ToProxy::Lack`]). A question ([`ToProxy::Ask`]) needs no pages and is
//! answered by one `Told` ([`facts`]). Frames: [`frames`]; layouts: [`message`].
//! The rule: whatever bytes arrive, the answer is a message or [`Malformed`]; nothing is allocated by an unchecked length.

pub mod facts;
mod frames;
mod ids;
mod message;
pub mod wire;

pub use frames::Frames;
pub use ids::{ChannelId, ContainerId};
pub use message::{Connect, FRAME_BYTES_MAX, HEADER_BYTES, Malformed, Message, REFS_MAX, ToGuest, ToProxy};
