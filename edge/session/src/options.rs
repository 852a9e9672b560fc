/// Limits of one session.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Largest frame that is taken from a device.
    pub frame_bytes_max: usize,
    /// Largest text of a message, as told to the device in Welcome.
    pub text_bytes_max: usize,
    /// Most cursors in one Hello.
    pub cursors_max: usize,
    /// How long a new connection may take to say Hello.
    pub hello_timeout_ms: u64,
    /// A session that is silent for twice this long is closed.
    pub heartbeat_ms: u32,
    /// A session that only says Ping for this long is sent away; 0 turns the limit off.
    pub idle_timeout_ms: u64,
    /// How long a session whose token has expired may take to say Reauth.
    pub token_grace_ms: u64,
    /// How long requests in flight may take after Goaway.
    pub drain_grace_ms: u64,
    /// Requests that may be in flight at once; the shell reads on when one is answered.
    pub in_flight_max: usize,
    /// Malformed frames in a row before the session is closed.
    pub malformed_max: u32,
    /// Pushes that may wait to be written.
    pub push_frames_max: usize,
    /// Bytes of pushes that may wait to be written.
    pub push_bytes_max: usize,
    /// Replies that may wait to be written; a device that lets more gather is closed.
    pub reply_frames_max: usize,
    /// Conversations that may be marked as lagged at once; a device that lets more gather is closed.
    pub lagged_max: usize,
    /// Conversations that one Pong names.
    pub pong_tails_max: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            frame_bytes_max: 64 * 1024,
            text_bytes_max: 16 * 1024,
            cursors_max: 1_000,
            hello_timeout_ms: 10_000,
            heartbeat_ms: 30_000,
            idle_timeout_ms: 24 * 60 * 60 * 1_000,
            token_grace_ms: 10_000,
            drain_grace_ms: 10_000,
            in_flight_max: 64,
            malformed_max: 10,
            push_frames_max: 1_024,
            push_bytes_max: 1024 * 1024,
            reply_frames_max: 256,
            lagged_max: 5_000,
            pong_tails_max: 100,
        }
    }
}
