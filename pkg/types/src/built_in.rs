//! Types that are known by their oid alone, as SQL.

use crate::oid;

/// SQL for a built-in scalar type, with its length or precision.
pub fn built_in_type(type_oid: u32, modifier: i32) -> Option<String> {
    let (name, takes) = match type_oid {
        oid::BOOL => ("boolean", Modifier::None),
        oid::BYTEA => ("bytea", Modifier::None),
        oid::CHAR => ("\"char\"", Modifier::None),
        oid::NAME => ("name", Modifier::None),
        oid::INT8 => ("bigint", Modifier::None),
        oid::INT2 => ("smallint", Modifier::None),
        oid::INT4 => ("integer", Modifier::None),
        oid::TEXT => ("text", Modifier::None),
        oid::OID => ("oid", Modifier::None),
        oid::JSON => ("json", Modifier::None),
        oid::JSONB => ("jsonb", Modifier::None),
        oid::XML => ("xml", Modifier::None),
        oid::FLOAT4 => ("real", Modifier::None),
        oid::FLOAT8 => ("double precision", Modifier::None),
        oid::MONEY => ("money", Modifier::None),
        oid::INET => ("inet", Modifier::None),
        oid::CIDR => ("cidr", Modifier::None),
        oid::MACADDR => ("macaddr", Modifier::None),
        oid::MACADDR8 => ("macaddr8", Modifier::None),
        oid::UUID => ("uuid", Modifier::None),
        oid::PG_LSN => ("pg_lsn", Modifier::None),
        oid::DATE => ("date", Modifier::None),
        oid::BPCHAR => ("character", Modifier::Length),
        oid::VARCHAR => ("character varying", Modifier::Length),
        oid::NUMERIC => ("numeric", Modifier::PrecisionScale),
        oid::TIME => ("time without time zone", Modifier::Nothing),
        oid::TIMETZ => ("time with time zone", Modifier::Nothing),
        oid::TIMESTAMP => ("timestamp without time zone", Modifier::Nothing),
        oid::TIMESTAMPTZ => ("timestamp with time zone", Modifier::Nothing),
        _ => return None,
    };
    // Both kinds of modifier count from 4, the size of the length word (`VARHDRSZ`).
    Some(match takes {
        Modifier::Length if modifier >= 4 => format!("{name}({})", modifier - 4),
        Modifier::PrecisionScale if modifier >= 4 => {
            let packed = modifier - 4;
            // The scale is an 11-bit signed number since Postgres 15.
            let scale = ((packed & 0x7ff) ^ 1024) - 1024;
            format!("{name}({},{scale})", packed >> 16 & 0xffff)
        }
        _ => name.to_owned(),
    })
}

enum Modifier {
    None,
    /// Has one, but a wider column is as good.
    Nothing,
    Length,
    PrecisionScale,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_modifiers_are_read_as_the_server_packs_them() {
        assert_eq!(built_in_type(oid::NUMERIC, (12 << 16 | 2) + 4).as_deref(), Some("numeric(12,2)"));
        assert_eq!(built_in_type(oid::NUMERIC, (3 << 16 | 0x7fe) + 4).as_deref(), Some("numeric(3,-2)"));
        assert_eq!(built_in_type(oid::VARCHAR, 84).as_deref(), Some("character varying(80)"));
        assert_eq!(built_in_type(oid::BPCHAR, 12).as_deref(), Some("character(8)"));
        assert_eq!(built_in_type(99_999, -1), None);
    }
}
