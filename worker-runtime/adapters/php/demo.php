<?php

require __DIR__ . '/temporal_handler.php';

use TemporalHandler\Failure;
use TemporalHandler\Task;

use function TemporalHandler\activity;
use function TemporalHandler\run;

activity('Echo', fn (Task $task, ...$args) => $args);

activity('Beat', function (Task $task, int $count) {
    for ($number = 1; $number <= $count; $number++) {
        $task->heartbeat($number);
        usleep(50_000);
    }
    return $task->message->heartbeat ?? null;
});

activity('Sleep', function (Task $task, float $seconds) {
    $end = microtime(true) + $seconds;
    while (microtime(true) < $end) {
        $task->heartbeat();
        usleep(50_000);
    }
});

activity('Fail', fn (Task $task, string $message) => throw new Failure($message, [
    'type' => 'Broken',
    'nonRetryable' => true,
    'nextRetryDelay' => 2.5,
    'details' => [['why' => $message]],
]));

activity('Crash', fn (Task $task) => exit(3));

activity('Print', function (Task $task) {
    echo "noise\n";
    return 'quiet';
});

activity('Raise', fn (Task $task) => throw new DomainException('no such picture'));

activity('NotJson', fn (Task $task) => NAN);

if (in_array('any', $argv, true)) {
    activity('*', fn (Task $task, ...$args) => [
        'type' => $task->message->type,
        'info' => $task->message->info,
        'args' => $args,
    ]);
}

run();
