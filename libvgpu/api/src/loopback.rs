//! A [`Transport`] without a peer: each call is packed, parsed and run by a [`Driver`] in place. For tests of both ends.

use std::cell::{Cell, RefCell};

use crate::calls::{Answer, Driver, Op, dispatch};
use crate::handle::ContextId;
use crate::result::{CuError, CuResult};
use crate::wire::{PAYLOAD_BYTES_MAX, REPLY_BYTES_MAX, Reader, WireError, Writer};
use crate::{Call, Transport};

/// Runs calls on `D`. The error of a queued call waits in [`Loopback::take_error`].
#[derive(Debug)]
pub struct Loopback<D> {
    driver: RefCell<D>,
    error: Cell<Option<CuError>>,
}

impl<D: Driver> Loopback<D> {
    /// With nothing run yet.
    pub fn new(driver: D) -> Self {
        Self { driver: RefCell::new(driver), error: Cell::new(None) }
    }

    /// The last error of a queued call.
    pub fn take_error(&self) -> Option<CuError> {
        self.error.take()
    }

    /// The driver, to look at.
    pub fn driver(&mut self) -> &mut D {
        self.driver.get_mut()
    }

    /// The driver, out of it.
    pub fn into_driver(self) -> D {
        self.driver.into_inner()
    }

    fn run(
        &self,
        op: Op,
        call: Call,
        size: usize,
        fill: impl FnOnce(&mut Writer<'_>),
        reply: &mut [u8],
    ) -> CuResult<Answer> {
        if size > PAYLOAD_BYTES_MAX {
            return Err(CuError::INVALID_VALUE);
        }
        let mut payload = vec![0; size];
        let mut writer = Writer::new(&mut payload);
        fill(&mut writer);
        if writer.finish() != Some(size) {
            return Err(CuError::UNKNOWN);
        }
        dispatch(&mut *self.driver.borrow_mut(), op as u16, call, &payload, reply)
            .map_err(|_| CuError::UNKNOWN)
    }
}

impl<D: Driver> Transport for Loopback<D> {
    fn send(
        &self,
        op: Op,
        context: ContextId,
        size: usize,
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> CuResult<()> {
        let answer = self.run(op, Call { context, sync: false }, size, fill, &mut [])?;
        if let Err(error) = CuError::check(answer.code) {
            self.error.set(Some(error));
        }
        Ok(())
    }

    fn call<T>(
        &self,
        op: Op,
        context: ContextId,
        size: usize,
        fill: impl FnOnce(&mut Writer<'_>),
        take: impl FnOnce(&mut Reader<'_>) -> Result<T, WireError>,
    ) -> CuResult<T> {
        let mut reply = vec![0; REPLY_BYTES_MAX];
        let answer = self.run(op, Call { context, sync: true }, size, fill, &mut reply)?;
        CuError::check(answer.code)?;
        take(&mut Reader::new(&reply[..answer.reply_bytes])).map_err(|_| CuError::UNKNOWN)
    }
}
