/// Settings of the message service.
#[derive(Debug, Clone)]
pub struct MessageOptions {
    /// Bytes of a message's text.
    pub text_bytes_max: usize,
    /// Members of a conversation up to which each is told how far the others are: in a larger one that would grow with their square.
    pub receipts_members_max: u32,
    /// Messages of a page when the caller names no limit.
    pub page_len_default: usize,
    /// Messages of a page at the most.
    pub page_len_max: usize,
    /// Bytes of text of a page at the most; a page holds at least one message.
    pub page_bytes_max: usize,
}

impl Default for MessageOptions {
    fn default() -> Self {
        Self {
            text_bytes_max: 16 * 1_024,
            receipts_members_max: 32,
            page_len_default: 50,
            page_len_max: 200,
            page_bytes_max: 512 * 1_024,
        }
    }
}
