//! Enums whose values have a label: one row each, from which everything else follows.

/// Defines an enum, one row per variant with its label.
///
/// Generates `ALL` in the order of the rows, `index`, `as_str` and `Display`. The label is the name
/// of the value in logs, metrics and documentation.
#[macro_export]
macro_rules! labels {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$about:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$about])* $variant,)+
        }

        impl $name {
            /// Every value, in the order of [`index`](Self::index).
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// Returns the value's position in [`ALL`](Self::ALL).
            pub const fn index(self) -> usize {
                self as usize
            }

            /// Returns the label.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
