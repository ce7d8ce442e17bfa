// A web server of one page: says where it runs, so that an answer proves that
// a container gave it. PORT chooses the port (8080).
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void answer(int client) {
    char request[4096], host[256], body[512], head[256];
    if (read(client, request, sizeof request) <= 0)
        return;
    gethostname(host, sizeof host);
    int size = snprintf(body, sizeof body, "Hello from container %.12s: process %d, user %d.\n", host, getpid(), getuid());
    int head_size = snprintf(head, sizeof head,
                             "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", size);
    if (write(client, head, head_size) == head_size && write(client, body, size) == size)
        shutdown(client, SHUT_WR);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    // The first process of a container ignores signals it has no handler for.
    signal(SIGTERM, _exit);
    signal(SIGINT, _exit);
    const char *port = getenv("PORT");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 8080)};
    int server = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(server, (struct sockaddr *)&address, sizeof address) < 0 || listen(server, 16) < 0) {
        perror("hello");
        return 1;
    }
    printf("listening on port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int client = accept(server, NULL, NULL);
        if (client < 0)
            continue;
        answer(client);
        close(client);
    }
}
