//! What a frontend is and what it may ask (Bridge).
