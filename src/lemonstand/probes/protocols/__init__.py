"""What all probes speak: sockets with TLS, IMAP, SMTP, ManageSieve, and the messages that are sent. Standard library only."""
