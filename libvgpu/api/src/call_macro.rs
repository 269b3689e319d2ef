//! What `calls!` makes of one line: a number, the guest's function, the worker's method, the arm of the dispatch.

/// The type after `->`, or `()`.
macro_rules! reply_type {
    () => {
        ()
    };
    ($t:ty) => {
        $t
    };
}

/// How a class travels: `async` is queued, the others wait.
macro_rules! travel {
    (async, $transport:ident, $op:expr, $context:ident, $size:expr, $fill:expr) => {
        $transport.send($op, $context, $size, $fill)
    };
    ($class:ident, $transport:ident, $op:expr, $context:ident, $size:expr, $fill:expr) => {
        $transport.call($op, $context, $size, $fill, |reader| $crate::wire::Wire::take(reader))
    };
}

macro_rules! class {
    (async) => {
        $crate::calls::Class::Async
    };
    (sync) => {
        $crate::calls::Class::Sync
    };
    (cached) => {
        $crate::calls::Class::Cached
    };
    (bulk) => {
        $crate::calls::Class::Bulk
    };
    (wait) => {
        $crate::calls::Class::Wait
    };
}

macro_rules! calls {
    ($(
        $(#[$meta:meta])*
        $class:ident fn $name:ident($($param:ident: $t:ty),* $(,)?) $(-> $reply:ty)?;
    )*) => {
        /// Number of a call on the wire. Only ends of one [`WIRE_HASH`] speak, so numbers may move.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        #[allow(non_camel_case_types, reason = "CUDA's names")]
        pub enum Op { $(
            $(#[$meta])*
            $name,
        )* }

        impl Op {
            /// All of them; the place is the number.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its name, for traces.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// Its parameters: name and type as they are declared.
            #[must_use]
            pub const fn params(self) -> &'static [(&'static str, &'static str)] {
                match self { $(Self::$name => &[$((stringify!($param), stringify!($t))),*],)* }
            }

            /// The type of its reply as it is declared, empty for none.
            #[must_use]
            pub const fn reply(self) -> &'static str {
                match self { $(Self::$name => concat!($(stringify!($reply))?),)* }
            }

            /// How it travels.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Self::$name => class!($class),)* }
            }
        }

        /// What the two ends hash: every name, class and type of this file.
        const CALLS: &[&str] = &[$(
            concat!(stringify!($class), " ", stringify!($name), "(", $(stringify!($t), ",",)* ")", $(stringify!($reply))?),
        )*];

        /// The worker's side: each call with plain typed parameters. Handles are of the right kind; whether they exist,
        /// and whether addresses and lengths are the guest's, the implementor checks.
        #[allow(non_snake_case, reason = "CUDA's names")]
        pub trait Driver { $(
            $(#[$meta])*
            /// # Errors
            /// What the program gets.
            fn $name(&mut self, call: $crate::Call, $($param: $t),*) -> $crate::CuResult<reply_type!($($reply)?)>;
        )* }

        /// A worker that answers 801 to every call: for fuzzing the way there.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Refuses;

        #[allow(non_snake_case, unused_variables, reason = "CUDA's names; nothing is looked at")]
        impl Driver for Refuses { $(
            fn $name(&mut self, call: $crate::Call, $($param: $t),*) -> $crate::CuResult<reply_type!($($reply)?)> {
                Err($crate::CuError::NOT_SUPPORTED)
            }
        )* }

        /// Parses one record's payload and runs it on `driver`. Give a `reply` of [`crate::wire::REPLY_BYTES_MAX`] bytes.
        /// # Errors
        /// The record is not what `libvgpu` sends: the guest's fault, end the channel.
        pub fn dispatch<D: Driver + ?Sized>(
            driver: &mut D, op: u16, call: $crate::Call, payload: &[u8], reply: &mut [u8],
        ) -> Result<Answer, $crate::WireError> {
            let op = *Op::ALL.get(usize::from(op)).ok_or($crate::WireError::UnknownOp(op))?;
            if !call.sync && op.class() != Class::Async {
                return Err($crate::WireError::BadValue("sync flag"));
            }
            let mut reader = $crate::Reader::new(payload);
            match op { $(
                Op::$name => {
                    $(let $param = <$t as $crate::Wire>::take(&mut reader)?;)*
                    reader.end()?;
                    Ok(Answer::of(driver.$name(call, $($param),*), reply))
                }
            )* }
        }

        /// The guest's side: each call as a function over a [`crate::Transport`].
        #[allow(non_snake_case, reason = "CUDA's names")]
        pub mod ask {
            use super::*;
            $(
                $(#[$meta])*
                /// # Errors
                /// The worker's answer (not for what is queued), or that the worker is gone.
                #[inline]
                pub fn $name<T: $crate::Transport + ?Sized>(
                    transport: &T, context: $crate::ContextId, $($param: $t),*
                ) -> $crate::CuResult<reply_type!($($reply)?)> {
                    travel!($class, transport, Op::$name, context, 0 $(+ $crate::Wire::size(&$param))*,
                        |writer: &mut $crate::Writer<'_>| { let _ = &writer; $($crate::Wire::put(&$param, writer);)* })
                }
            )*
        }
    };
}
pub(crate) use {calls, class, reply_type, travel};
