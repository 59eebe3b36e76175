//! Which addresses are out in the world, where anybody may call, and which are the inside of some network.
//!
//! After the registries of special addresses of IANA. IPv4: everything but the blocks below. IPv6: of the addresses that
//! were ever given out (`2000::/3`), everything but the blocks below; all others are refused, and with them each form in
//! which an IPv4 address hides in one (mapped, compatible, NAT64), which no server needs to be called by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Address, length of the prefix, and what such addresses are.
const SPECIAL_V4: [(Ipv4Addr, u32, &str); 17] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, "of \"this network\""),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "shared within a provider's network"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    (Ipv4Addr::new(168, 63, 129, 16), 32, "a cloud's service for its own machines"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "for protocols"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "for documentation"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "of 6to4 relays"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "for benchmarks"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "for documentation"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "for documentation"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::new(255, 255, 255, 255), 32, "broadcast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved"),
];

/// The first that fits says what an address is.
const SPECIAL_V6: [(Ipv6Addr, u32, &str); 18] = [
    (Ipv6Addr::UNSPECIFIED, 128, "unspecified"),
    (Ipv6Addr::LOCALHOST, 128, "loopback"),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, "IPv4-mapped"),
    (Ipv6Addr::UNSPECIFIED, 96, "IPv4-compatible"),
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96, "of NAT64"),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, "of NAT64"),
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64, "for discarding"),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, "of Teredo"),
    (Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0), 48, "for benchmarks"),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "for protocols"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "for documentation"),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, "of 6to4"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "for documentation"),
    (Ipv6Addr::new(0x5f00, 0, 0, 0, 0, 0, 0, 0), 16, "of segment routing"),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, "unique-local"),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, "link-local"),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, "site-local"),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, "multicast"),
];

/// What an address is that is not out in the world; none if anybody may call it.
#[must_use]
pub fn refusal(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => {
            let within = |net: Ipv4Addr, length| (address.to_bits() ^ net.to_bits()).leading_zeros() >= length;
            SPECIAL_V4.iter().find(|(net, length, _)| within(*net, *length)).map(|(_, _, what)| *what)
        }
        IpAddr::V6(address) => {
            let within = |net: Ipv6Addr, length| (address.to_bits() ^ net.to_bits()).leading_zeros() >= length;
            let special = SPECIAL_V6.iter().find(|(net, length, _)| within(*net, *length)).map(|(_, _, what)| *what);
            let given_out = within(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
            special.or((!given_out).then_some("reserved"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_ends_where_it_should() {
        for (address, what) in [
            ("0.0.0.0", "this network"),
            ("0.255.255.255", "this network"),
            ("9.255.255.255", ""),
            ("10.0.0.0", "private"),
            ("10.255.255.255", "private"),
            ("11.0.0.0", ""),
            ("100.63.255.255", ""),
            ("100.64.0.0", "provider"),
            ("100.100.100.200", "provider"), // The metadata of a cloud.
            ("100.127.255.255", "provider"),
            ("100.128.0.0", ""),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("128.0.0.0", ""),
            ("168.63.129.16", "cloud"),
            ("168.63.129.17", ""),
            ("169.253.255.255", ""),
            ("169.254.169.254", "link-local"), // The metadata of most clouds.
            ("169.255.0.0", ""),
            ("172.15.255.255", ""),
            ("172.16.0.0", "private"),
            ("172.31.255.255", "private"),
            ("172.32.0.0", ""),
            ("192.0.0.192", "protocols"), // The metadata of a cloud.
            ("192.0.1.0", ""),
            ("192.0.2.255", "documentation"),
            ("192.0.3.0", ""),
            ("192.88.99.1", "6to4"),
            ("192.167.255.255", ""),
            ("192.168.0.1", "private"),
            ("192.169.0.0", ""),
            ("198.17.255.255", ""),
            ("198.18.0.0", "benchmarks"),
            ("198.19.255.255", "benchmarks"),
            ("198.20.0.0", ""),
            ("198.51.100.7", "documentation"),
            ("203.0.113.7", "documentation"),
            ("223.255.255.255", ""),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.0", "reserved"),
            ("255.255.255.254", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("1.1.1.1", ""),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::2", "compatible"),
            ("::127.0.0.1", "compatible"),
            ("::1.1.1.1", "compatible"),
            ("::ffff:127.0.0.1", "mapped"),
            ("::ffff:1.1.1.1", "mapped"),
            ("::ffff:0:127.0.0.1", "reserved"), // IPv4-translated.
            ("64:ff9b::a9fe:a9fe", "NAT64"),
            ("64:ff9b:1::1", "NAT64"),
            ("64:ff9b:2::1", "reserved"),
            ("100::1", "discarding"),
            ("1fff:ffff::1", "reserved"),
            ("2001::1", "Teredo"),
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"),
            ("2001:2::1", "benchmarks"),
            ("2001:20::1", "protocols"),
            ("2001:1ff:ffff::1", "protocols"),
            ("2001:200::1", ""),
            ("2001:4860:4860::8888", ""),
            ("2001:db8::1", "documentation"),
            ("2001:db9::1", ""),
            ("2002:7f00:1::1", "6to4"),
            ("2003::1", ""),
            ("2606:4700::1111", ""),
            ("3ffe::1", ""),
            ("3fff::1", "documentation"),
            ("3fff:fff::1", "documentation"),
            ("3fff:1000::1", ""),
            ("4000::1", "reserved"),
            ("5f00::1", "segment"),
            ("fc00::1", "unique-local"),
            ("fd00:ec2::254", "unique-local"), // The metadata of a cloud.
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
            ("ffff::1", "multicast"),
        ] {
            let found = refusal(address.parse().expect(address));
            assert_eq!(found.is_some(), !what.is_empty(), "{address}: {found:?}");
            assert!(found.unwrap_or_default().contains(what), "{address}: {found:?}, not {what}");
        }
    }
}
