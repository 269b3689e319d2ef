//! Policy rules: a namespace has three, and no others are carried.

use netlink_packet_route::{
    AddressFamily,
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use super::{ScanError, unfit};

/// The rules that a namespace begins with: priority and table. Source: ip-rule(8).
const FIRST_RULES: [(u32, u32); 3] = [(0, 255), (32766, 254), (32767, 253)];

pub(super) fn refuse(rule: &RuleMessage) -> Result<(), ScanError> {
    let header = &rule.header;
    if !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6) {
        return Ok(());
    }
    let (mut priority, mut table, mut plain) = (0, u32::from(header.table), true);
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Table(number) => table = *number,
            // Who made it, and what does nothing.
            RuleAttribute::Protocol(_) | RuleAttribute::Other(_) => {}
            RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            _ => plain = false,
        }
    }
    plain &=
        header.action == RuleAction::ToTable && (header.src_len, header.dst_len, header.tos) == (0, 0, 0);
    if plain && FIRST_RULES.contains(&(priority, table)) {
        return Ok(());
    }
    let family = if header.family == AddressFamily::Inet { "IPv4" } else { "IPv6" };
    unfit(format!("the {family} policy rule of priority {priority}"))
}
