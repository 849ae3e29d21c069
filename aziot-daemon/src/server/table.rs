//! The table of connections. Places are reused; generations tell the users of a place apart.

use super::conn::Conn;

/// The connections.
#[derive(Default)]
pub struct Table {
    places: Vec<Place>,
    free: Vec<u32>,
    count: usize,
}

#[derive(Default)]
struct Place {
    generation: u32,
    conn: Option<Box<Conn>>,
}

impl Table {
    /// Connections, those that are being driven included.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a connection, made with the generation of its place.
    pub fn insert(&mut self, make: impl FnOnce(u32) -> Conn) -> u32 {
        self.count += 1;
        if let Some(index) = self.free.pop()
            && let Some(place) = self.places.get_mut(index as usize)
        {
            place.generation = place.generation.wrapping_add(1);
            place.conn = Some(Box::new(make(place.generation)));
            return index;
        }
        let index = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.push(Place {
            generation: 0,
            conn: Some(Box::new(make(0))),
        });
        index
    }

    /// The connection at a place.
    pub fn at(&mut self, index: u32) -> Option<&mut Conn> {
        self.places.get_mut(index as usize)?.conn.as_deref_mut()
    }

    /// The connection at a place, if it is still the same.
    pub fn same(&mut self, index: u32, generation: u32) -> Option<&mut Conn> {
        self.at(index).filter(|conn| conn.generation == generation)
    }

    /// Takes a connection out to drive it; the place stays reserved.
    pub fn take(&mut self, index: u32) -> Option<Box<Conn>> {
        self.places.get_mut(index as usize)?.conn.take()
    }

    /// Puts it back.
    pub fn put_back(&mut self, index: u32, conn: Box<Conn>) {
        if let Some(place) = self.places.get_mut(index as usize) {
            place.conn = Some(conn);
        }
    }

    /// Frees the place of a connection that was taken out.
    pub fn vacate(&mut self, index: u32) {
        self.count = self.count.saturating_sub(1);
        self.free.push(index);
    }

    /// Removes a connection.
    pub fn remove(&mut self, index: u32) {
        if self.take(index).is_some() {
            self.vacate(index);
        }
    }

    /// All places in use.
    pub fn places(&self) -> Vec<u32> {
        (0..)
            .zip(&self.places)
            .filter(|(_, place)| place.conn.is_some())
            .map(|(index, _)| index)
            .collect()
    }
}
