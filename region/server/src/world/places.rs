//! How far apart well-known places are.
//!
//! Typical round trips in milliseconds between data centres of public clouds, rounded; of the order of the medians that the
//! clouds publish themselves and that public probes between their regions show (Azure's "network round-trip latency
//! statistics", AWS's Infrastructure Performance, cloudping.co). Routes change: they are a size to build for, not a promise.

/// Between two places of which one is not in the table.
pub(crate) const UNKNOWN_RTT_MS: u32 = 100;
/// Between two regions in the same place, such as `us-east-1` and `us-east-2`.
pub(crate) const SAME_PLACE_RTT_MS: u32 = 10;

/// The places: northern Virginia, Oregon, Ireland, Frankfurt, Tokyo, Singapore, Mumbai, São Paulo, Cape Town, Dubai, Sydney.
const PLACES: [&str; 11] = [
    "us-east",
    "us-west",
    "eu-west",
    "eu-central",
    "ap-northeast",
    "ap-southeast",
    "ap-south",
    "sa-east",
    "af-south",
    "me-central",
    "au-east",
];

/// Row `i` holds the round trips from place `i + 1` to the places before it.
const RTT_MS: [&[u32]; 10] = [
    &[65],
    &[70, 125],
    &[90, 145, 25],
    &[150, 100, 205, 225],
    &[220, 165, 175, 160, 70],
    &[190, 220, 125, 120, 130, 60],
    &[115, 175, 180, 205, 260, 325, 300],
    &[225, 285, 160, 155, 355, 290, 265, 340],
    &[185, 235, 125, 115, 165, 95, 35, 300, 250],
    &[200, 140, 260, 250, 105, 95, 155, 310, 410, 185],
];

/// The typical round trip between two regions by their names; a number behind the name of a place does not count.
pub(crate) fn rtt_ms(one: &str, other: &str) -> u32 {
    let (Some(one), Some(other)) = (place(one), place(other)) else {
        return UNKNOWN_RTT_MS;
    };
    match RTT_MS.get(one.max(other).wrapping_sub(1)) {
        Some(row) if one != other => row.get(one.min(other)).copied().unwrap_or(UNKNOWN_RTT_MS),
        Some(_) | None => SAME_PLACE_RTT_MS,
    }
}

fn place(region: &str) -> Option<usize> {
    let name = match region.rsplit_once('-') {
        Some((name, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => region,
    };
    PLACES.iter().position(|place| *place == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_the_same_both_ways() {
        for one in PLACES {
            for other in PLACES {
                assert_eq!(rtt_ms(one, other), rtt_ms(other, one), "{one} {other}");
            }
        }
    }

    #[test]
    fn every_pair_of_places_has_a_round_trip_of_its_own() {
        for (at, row) in RTT_MS.iter().enumerate() {
            assert_eq!(row.len(), at + 1, "{}", PLACES[at + 1]);
        }
        assert_eq!(RTT_MS.len() + 1, PLACES.len());
        assert_eq!(rtt_ms("us-east", "eu-central"), 90);
        assert_eq!(rtt_ms("ap-northeast", "us-east"), 150);
        assert_eq!(rtt_ms("me-central", "af-south"), 250);
    }

    #[test]
    fn no_way_round_is_much_shorter_than_the_direct_one() {
        for one in PLACES {
            for other in PLACES {
                for by in PLACES {
                    let round = rtt_ms(one, by) + rtt_ms(by, other);
                    assert!(
                        rtt_ms(one, other) * 3 <= round * 4 || one == other,
                        "{one} {other} by {by}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_number_behind_a_place_does_not_count_and_an_unknown_place_is_somewhere() {
        assert_eq!(rtt_ms("us-east-1", "eu-west-3"), 70);
        assert_eq!(rtt_ms("us-east-1", "us-east-2"), SAME_PLACE_RTT_MS);
        assert_eq!(rtt_ms("us-east", "us-east"), SAME_PLACE_RTT_MS);
        for (one, other) in [("moon", "us-east"), ("us-west", "moon"), ("moon", "mars"), ("-1", "7")] {
            assert_eq!(rtt_ms(one, other), UNKNOWN_RTT_MS, "{one} {other}");
        }
    }
}
