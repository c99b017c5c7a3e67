//! The operators of Rust between values, and between values and numbers.

use crate::Value;

macro_rules! operators {
    ($($trait:ident $method:ident = $function:ident),*) => {$(
        operators!(@ $trait $method $function, &Value, &Value);
        operators!(@ $trait $method $function, Value, &Value);
        operators!(@ $trait $method $function, &Value, Value);
        operators!(@ $trait $method $function, Value, Value);
        operators!(@number $trait $method $function, &Value);
        operators!(@number $trait $method $function, Value);
    )*};
    (@ $trait:ident $method:ident $function:ident, $left:ty, $right:ty) => {
        impl std::ops::$trait<$right> for $left {
            type Output = Value;
            #[track_caller]
            fn $method(self, other: $right) -> Value {
                Value::$function(&self, &other)
            }
        }
    };
    (@number $trait:ident $method:ident $function:ident, $left:ty) => {
        impl std::ops::$trait<f64> for $left {
            type Output = Value;
            /// With a number, which must be representable in the value's wide type; for floats it is rounded to f32.
            #[track_caller]
            fn $method(self, other: f64) -> Value {
                self.with_number(other, Value::$function)
            }
        }
    };
}
operators!(Add add = add, Sub sub = sub, Mul mul = mul, Div div = div, Rem rem = remainder);

impl std::ops::Neg for &Value {
    type Output = Value;
    #[track_caller]
    fn neg(self) -> Value {
        Value::neg(self)
    }
}

impl std::ops::Neg for Value {
    type Output = Value;
    #[track_caller]
    fn neg(self) -> Value {
        Value::neg(&self)
    }
}
