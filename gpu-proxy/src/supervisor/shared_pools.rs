//! Pools that workers of one zone share: who made each, of which device. What lies in a pool is memory as any other (`shared.rs`); a pool's
//! token only says which pieces belong to it, so nothing counts here and nobody who got it need say that it has it no more.

use std::collections::BTreeMap;

use vgpu_api::{CuError, CuResult, Token};

use super::token::random_token;
use super::worker_id::WorkerId;

/// Pools of one zone at once.
const PER_ZONE_MAX: usize = 1024;

/// The pools of one zone: each one's maker, and the node's number of its device.
#[derive(Debug, Default)]
pub(super) struct Pools(BTreeMap<Token, (WorkerId, u32)>);

impl Pools {
    pub fn put(&mut self, worker: WorkerId, device: u32) -> CuResult<Token> {
        if self.0.len() >= PER_ZONE_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        let token = random_token().map_err(|_| CuError::OUT_OF_MEMORY)?;
        self.0.insert(token, (worker, device));
        Ok(token)
    }

    pub fn device_of(&self, token: Token) -> CuResult<u32> {
        self.0.get(&token).map(|(_, device)| *device).ok_or(CuError::INVALID_VALUE)
    }

    pub fn let_go(&mut self, worker: WorkerId, token: Token) -> CuResult<()> {
        let (maker, _) = self.0.get(&token).ok_or(CuError::INVALID_VALUE)?;
        if *maker != worker {
            return Err(CuError::INVALID_VALUE);
        }
        self.0.remove(&token);
        Ok(())
    }

    pub fn ended(&mut self, worker: WorkerId) {
        self.0.retain(|_, (maker, _)| *maker != worker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_there_until_its_maker_says_so_or_ends_and_there_is_an_end_of_them() {
        let (mut pools, [one, two]) = (Pools::default(), [WorkerId(1), WorkerId(2)]);
        let wrong = Err(CuError::INVALID_VALUE);
        let [first, second] = [3, 4].map(|device| pools.put(one, device).unwrap());
        assert_eq!((pools.device_of(first), pools.device_of(second)), (Ok(3), Ok(4)));
        assert_eq!(pools.device_of(Token([0; 16])), Err(CuError::INVALID_VALUE));
        assert_eq!(
            (pools.let_go(two, first), pools.let_go(one, first), pools.let_go(one, first)),
            (wrong, Ok(()), wrong)
        );
        for _ in 1..PER_ZONE_MAX {
            pools.put(two, 0).unwrap();
        }
        assert_eq!(pools.put(one, 0), Err(CuError::OUT_OF_MEMORY));
        pools.ended(two);
        assert_eq!((pools.0.len(), pools.device_of(second)), (1, Ok(4)));
    }
}
