//! Dates of certificates (RFC 5280, 4.1.2.5), as seconds since 1970.

use aziot_core::der::{Reader, Tag, Writer};
use aziot_core::time::{Civil, UnixTime};

use super::error::Error;

/// Five cycles of the calendar, which repeats every 400 years. Dates before 1970 are reckoned that much later.
const CYCLES_YEARS: u16 = 2000;
const CYCLES_SECONDS: i64 = 5 * 146_097 * 86_400;

/// 0000-01-01T00:00:00Z.
const MIN: i64 = -62_167_219_200;

/// Reads the next element, a date.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<i64, Error> {
    let element = reader.element().map_err(Error::of("validity"))?;
    match (element.tag, element.content) {
        (Tag::UTC_TIME, [y1, y2, rest @ ..]) => {
            let year = two(*y1, *y2).ok_or(Error::Time)?;
            let century = if year < 50 { 2000 } else { 1900 };
            parse(century + u16::from(year), rest)
        }
        (Tag::GENERALIZED_TIME, [y1, y2, y3, y4, rest @ ..]) => two(*y1, *y2)
            .zip(two(*y3, *y4))
            .and_then(|(century, year)| parse(u16::from(century) * 100 + u16::from(year), rest)),
        _ => None,
    }
    .ok_or(Error::Time)
}

/// `MMDDhhmmssZ`
fn parse(year: u16, rest: &[u8]) -> Option<i64> {
    let &[mo1, mo2, d1, d2, h1, h2, mi1, mi2, s1, s2, b'Z'] = rest else {
        return None;
    };
    let early = year < 1970;
    let civil = Civil {
        year: if early { year + CYCLES_YEARS } else { year },
        month: two(mo1, mo2)?,
        day: two(d1, d2)?,
        hour: two(h1, h2)?,
        minute: two(mi1, mi2)?,
        second: two(s1, s2).filter(|second| *second < 60)?,
        weekday: 0,
    };
    let seconds = i64::try_from(UnixTime::from_civil(&civil)?.as_secs()).ok()?;
    Some(if early {
        seconds - CYCLES_SECONDS
    } else {
        seconds
    })
}

fn two(tens: u8, ones: u8) -> Option<u8> {
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| (tens - b'0') * 10 + (ones - b'0'))
}

/// Appends a date: `UTCTime` from 1950 to 2049, `GeneralizedTime` before and after. `None` outside of the years 0 to 9999.
pub(super) fn write(w: &mut Writer<'_>, seconds: i64) -> Option<()> {
    let early = seconds < 0;
    let reckoned = if early {
        seconds.checked_add(CYCLES_SECONDS)?
    } else {
        seconds
    };
    if seconds < MIN {
        return None;
    }
    let civil = UnixTime::from_secs(u64::try_from(reckoned).ok()?)?.civil();
    let year = if early {
        civil.year.checked_sub(CYCLES_YEARS)?
    } else {
        civil.year
    };
    // Every part is below 100.
    let two = |value: u16| [b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8];
    let mut text = *b"YYYYMMDDhhmmssZ";
    let parts = [
        year / 100,
        year % 100,
        civil.month.into(),
        civil.day.into(),
        civil.hour.into(),
        civil.minute.into(),
        civil.second.into(),
    ];
    for (place, part) in text.chunks_exact_mut(2).zip(parts) {
        place.copy_from_slice(&two(part));
    }
    if (1950..2050).contains(&year) {
        w.element(Tag::UTC_TIME, text.get(2..).unwrap_or_default());
    } else {
        w.element(Tag::GENERALIZED_TIME, &text);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(seconds: i64) -> Option<Vec<u8>> {
        let mut buffer = [0; 20];
        let mut writer = Writer::new(&mut buffer);
        write(&mut writer, seconds)?;
        writer.finish().ok().map(<[u8]>::to_vec)
    }

    #[test]
    fn both_forms_and_their_ends() {
        for (seconds, text) in [
            (0, "700101000000Z"),
            (-1, "691231235959Z"),
            (-631_152_000, "500101000000Z"),
            (-631_152_001, "19491231235959Z"),
            (2_524_607_999, "491231235959Z"),
            (2_524_608_000, "20500101000000Z"),
            (253_402_300_799, "99991231235959Z"),
            (MIN, "00000101000000Z"),
            (1_795_808_415, "261127194015Z"),
        ] {
            let der = written(seconds).unwrap();
            assert_eq!(&der[2..], text.as_bytes());
            assert_eq!(read(&mut Reader::new(&der)), Ok(seconds), "{text}");
        }
        for seconds in [253_402_300_800, MIN - 1, i64::MAX, i64::MIN] {
            assert_eq!(written(seconds), None);
        }
    }

    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "7",
            "700101000000",
            "7001010000Z",
            "700101000000+0100",
            "700101000060Z",
            "700230000000Z",
            "701301000000Z",
            "70010100000 Z",
            "700101000000z",
            "700101240000Z",
        ] {
            let der = [&[0x17, text.len() as u8][..], text.as_bytes()].concat();
            assert_eq!(read(&mut Reader::new(&der)), Err(Error::Time), "{text}");
        }
        let der = [&[0x18, 19][..], b"20500101000000.000Z"].concat();
        assert_eq!(read(&mut Reader::new(&der)), Err(Error::Time));
    }

    proptest! {
        #[test]
        fn every_second_comes_back(seconds in MIN..253_402_300_800) {
            let der = written(seconds).unwrap();
            prop_assert_eq!(read(&mut Reader::new(&der)), Ok(seconds));
        }
    }
}
