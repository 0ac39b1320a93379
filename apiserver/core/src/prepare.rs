//! The one entry: from a request to its plan.

use jiff::Timestamp;

use crate::failure;
use crate::ids::Ids;
use crate::request::Request;
use crate::response::Prepared;
use crate::user::User;
use crate::world::World;

/// Plans a request: authorizes it, and says what is to be done.
pub fn prepare(
    world: &World<'_>,
    request: &Request,
    user: &User,
    now: Timestamp,
    ids: &mut Ids<'_>,
) -> Prepared {
    let _ = (world, request, user, now, ids);
    Prepared::Respond(*failure::no_such_path())
}
