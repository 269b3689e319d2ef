//! `.rz`, `.rm`, `.rp`: rounding that the host's instructions do not offer, made from results to nearest and exact remainders.
//!
//! A rounded result and the sign of what rounding took away decide whether the neighbour is the right answer. The remainders are
//! exact by the usual error-free transformations (two-sum, and products with a fused multiply-add).

/// How a result is rounded. Source: PTX ISA, "Rounding Modifiers".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// `.rn`: to nearest, ties to even.
    Nearest,
    /// `.rz`: towards zero.
    Zero,
    /// `.rm`: towards negative infinity.
    Down,
    /// `.rp`: towards positive infinity.
    Up,
}

impl Rounding {
    /// The one named by a modifier.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "rn" | "rni" => Rounding::Nearest,
            "rz" | "rzi" => Rounding::Zero,
            "rm" | "rmi" => Rounding::Down,
            "rp" | "rpi" => Rounding::Up,
            _ => return None,
        })
    }

    /// `value` to an integer.
    pub fn to_integral(self, value: f64) -> f64 {
        match self {
            Rounding::Nearest => value.round_ties_even(),
            Rounding::Zero => value.trunc(),
            Rounding::Down => value.floor(),
            Rounding::Up => value.ceil(),
        }
    }

    /// `value` as binary32.
    pub fn to_f32(self, value: f64) -> f32 {
        self.sum_to_f32(value, 0.0)
    }

    /// `high + low` as binary32, where `low` is smaller than half a unit of `high`'s last place.
    fn sum_to_f32(self, high: f64, low: f64) -> f32 {
        #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is what is asked for")]
        let nearest = high as f32;
        if self == Rounding::Nearest || !high.is_finite() {
            return nearest;
        }
        let difference = high - f64::from(nearest);
        let error = if difference == 0.0 { low } else { difference };
        match self.step(nearest.is_sign_negative() || (nearest == 0.0 && error < 0.0), error) {
            1 => nearest.next_up(),
            -1 => nearest.next_down(),
            _ => nearest,
        }
    }

    /// Whether a result to nearest has to go to its neighbour above (1) or below (-1): `error` is exact minus result.
    fn step(self, is_negative: bool, error: f64) -> i32 {
        match self {
            Rounding::Up if error > 0.0 => 1,
            Rounding::Down if error < 0.0 => -1,
            Rounding::Zero if !is_negative && error < 0.0 => -1,
            Rounding::Zero if is_negative && error > 0.0 => 1,
            _ => 0,
        }
    }

    fn correct(self, nearest: f64, error: f64, finite_inputs: bool) -> f64 {
        if nearest.is_nan() || (nearest.is_infinite() && !finite_inputs) {
            return nearest;
        }
        // An overflow of finite inputs: the exact result lies this side of infinity.
        let error = if nearest.is_infinite() { -nearest } else { error };
        match self.step(nearest.is_sign_negative(), error) {
            1 => nearest.next_up(),
            -1 => nearest.next_down(),
            _ => nearest,
        }
    }

    pub fn add32(self, a: f32, b: f32) -> f32 {
        let (a, b) = (f64::from(a), f64::from(b));
        let sum = a + b;
        if sum == 0.0 && self == Rounding::Down && (a != 0.0 || a.is_sign_negative() != b.is_sign_negative())
        {
            return -0.0; // an exact zero sum rounds to -0 downwards
        }
        self.sum_to_f32(sum, two_sum_error(a, b, sum))
    }

    pub fn mul32(self, a: f32, b: f32) -> f32 {
        self.to_f32(f64::from(a) * f64::from(b)) // exact in binary64
    }

    pub fn fma32(self, a: f32, b: f32, c: f32) -> f32 {
        let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
        let sum = product + c;
        if sum == 0.0
            && self == Rounding::Down
            && (c != 0.0 || c.is_sign_negative() != product.is_sign_negative())
        {
            return -0.0;
        }
        self.sum_to_f32(sum, two_sum_error(product, c, sum))
    }

    pub fn div32(self, a: f32, b: f32) -> f32 {
        let (a, b) = (f64::from(a), f64::from(b));
        let quotient = a / b;
        if !quotient.is_finite() || b.is_infinite() {
            return self.to_f32(quotient);
        }
        self.sum_to_f32(quotient, (-quotient).mul_add(b, a) * b.signum())
    }

    pub fn sqrt32(self, a: f32) -> f32 {
        let a = f64::from(a);
        let root = a.sqrt();
        if !root.is_finite() {
            return self.to_f32(root);
        }
        self.sum_to_f32(root, (-root).mul_add(root, a))
    }

    pub fn add64(self, a: f64, b: f64) -> f64 {
        let sum = a + b;
        if sum == 0.0 && self == Rounding::Down && (a != 0.0 || a.is_sign_negative() != b.is_sign_negative())
        {
            return -0.0;
        }
        self.correct(sum, two_sum_error(a, b, sum), a.is_finite() && b.is_finite())
    }

    pub fn mul64(self, a: f64, b: f64) -> f64 {
        let product = a * b;
        self.correct(product, a.mul_add(b, -product), a.is_finite() && b.is_finite())
    }

    pub fn fma64(self, a: f64, b: f64, c: f64) -> f64 {
        let result = a.mul_add(b, c);
        let product = a * b;
        let product_error = a.mul_add(b, -product);
        let low = c + product_error;
        let low_error = two_sum_error(c, product_error, low);
        let high = product + low;
        let high_error = two_sum_error(product, low, high);
        let error = ((high - result) + high_error) + low_error;
        if result == 0.0
            && self == Rounding::Down
            && (c != 0.0 || c.is_sign_negative() != product.is_sign_negative())
        {
            return -0.0;
        }
        self.correct(result, error, a.is_finite() && b.is_finite() && c.is_finite())
    }

    pub fn div64(self, a: f64, b: f64) -> f64 {
        let quotient = a / b;
        let finite = a.is_finite() && b.is_finite() && b != 0.0;
        let error = if quotient.is_finite() && finite { (-quotient).mul_add(b, a) * b.signum() } else { 0.0 };
        self.correct(quotient, error, finite)
    }

    pub fn sqrt64(self, a: f64) -> f64 {
        let root = a.sqrt();
        let error = if root.is_finite() { (-root).mul_add(root, a) } else { 0.0 };
        self.correct(root, error, false)
    }
}

/// What `a + b` lost when it became `sum`: exact.
fn two_sum_error(a: f64, b: f64, sum: f64) -> f64 {
    let part = sum - a;
    (a - (sum - part)) + (b - part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_lies_between_its_two_neighbours() {
        assert_eq!(Rounding::Down.div32(1.0, 3.0).next_up(), Rounding::Up.div32(1.0, 3.0));
        assert_eq!(Rounding::Zero.div32(-1.0, 3.0), Rounding::Up.div32(-1.0, 3.0));
        assert_eq!(Rounding::Down.div64(1.0, 3.0).next_up(), Rounding::Up.div64(1.0, 3.0));
        assert_eq!(Rounding::Down.div64(1.0, 4.0), Rounding::Up.div64(1.0, 4.0));
    }

    #[test]
    fn a_tiny_addend_moves_a_sum_by_one_place_at_most() {
        let tiny = f32::from_bits(1);
        assert_eq!(Rounding::Up.add32(1.0, tiny), 1f32.next_up());
        assert_eq!(Rounding::Down.add32(1.0, tiny), 1.0);
        assert_eq!(Rounding::Zero.add32(1.0, -tiny), 1f32.next_down());
        assert_eq!(Rounding::Up.add64(1.0, f64::MIN_POSITIVE), 1f64.next_up());
        assert_eq!(Rounding::Zero.fma32(1.0, 1.0, -tiny), 1f32.next_down());
    }

    #[test]
    fn overflow_stops_at_the_largest_number_unless_rounded_away() {
        assert_eq!(Rounding::Zero.add32(f32::MAX, f32::MAX), f32::MAX);
        assert_eq!(Rounding::Up.add32(f32::MAX, f32::MAX), f32::INFINITY);
        assert_eq!(Rounding::Down.mul64(f64::MAX, 2.0), f64::MAX);
        assert_eq!(Rounding::Down.mul64(f64::MAX, -2.0), f64::NEG_INFINITY);
        assert_eq!(Rounding::Zero.mul64(f64::INFINITY, 2.0), f64::INFINITY);
    }

    #[test]
    fn roots_are_bracketed() {
        assert_eq!(Rounding::Down.sqrt32(2.0).next_up(), Rounding::Up.sqrt32(2.0));
        assert_eq!(Rounding::Down.sqrt64(2.0).next_up(), Rounding::Up.sqrt64(2.0));
        assert_eq!(Rounding::Up.sqrt64(9.0), 3.0);
    }
}
