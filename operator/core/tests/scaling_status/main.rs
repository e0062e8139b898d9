//! What status, events and `explain` say of a scaling decision. The decisions here are made up, so that each of their
//! parts can be seen to arrive.

mod conditions;
mod events;
mod explained;
mod planned;
mod scene;
